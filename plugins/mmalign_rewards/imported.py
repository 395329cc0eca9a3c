"""Functions and classes that a config names by dotted path or by file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from mmalign import ConfigError, suggest


def load_callable(path: str, where: str) -> Callable[..., Any]:
    """Imports what a config names: `package.module.name`, `package.module:name` or `path/file.py:name`.

    What else a module raises while it is imported is a bug in it, and passes with its traceback.

    Args:
        where: the config key that named it, for errors.

    Raises:
        ConfigError: there is no such file, module or name, or it cannot be imported or called.
    """
    file_name, _, in_file = path.rpartition(":")
    if file_name.endswith(".py"):
        found = _find(_load_file(Path(file_name), where), in_file, path, where)
    else:
        found = _load_dotted(path, where)
    if not callable(found):
        raise ConfigError(f"{where}: {path!r} is a {type(found).__name__}, expected a function")
    loaded: Callable[..., Any] = found
    return loaded


def _load_file(file: Path, where: str) -> ModuleType:
    resolved = file.resolve()
    # A name of its own, so that the file neither hides nor becomes another module; the same file is loaded once.
    name = f"mmalign_function_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{where}: {str(file)!r} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, OSError) as error:
        del sys.modules[name]
        raise ConfigError(f"{where}: cannot import {str(file)!r}: {type(error).__name__}: {error}") from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_dotted(path: str, where: str) -> Any:
    module_name, separator, attribute = path.partition(":")
    if not separator:
        module_name, _, attribute = path.rpartition(".")
    if not module_name or not attribute or module_name.startswith("."):
        expected = "expected 'package.module.function' or 'path/file.py:function'"
        raise ConfigError(f"{where}: got {path!r}; {expected}")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError, OSError) as error:
        hint = "name a file that is not installed as 'path/file.py:function'"
        raise ConfigError(f"{where}: cannot import {module_name!r}: {error}; {hint}") from error
    return _find(module, attribute, path, where)


def _find(module: ModuleType, attribute: str, path: str, where: str) -> Any:
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        names = [name for name, value in vars(module).items() if _is_named(name, value)]
        raise ConfigError(f"{where}: {path!r} has no {attribute!r}{suggest(attribute, names)}") from None


def _is_named(name: str, value: Any) -> bool:
    return name[0] != "_" and (inspect.isroutine(value) or inspect.isclass(value))
