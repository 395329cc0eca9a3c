"""Any Python function as a reward, named in the config by dotted path or by file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Any

from mmalign import ConfigError, Parameters, Reward, Sample, suggest

_ARGUMENTS = ("prompts", "responses", "records")
_CALL = ", ".join(_ARGUMENTS)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_WHERE = "rewards.python.function"


class PythonFunctionConfig(Parameters):
    """A Python function."""

    function: str
    """`package.module.function`, `package.module:function`, or `path/file.py:function` (from the working folder)."""


class PythonFunction(Reward):
    """Calls a function with those of these keyword arguments that its signature takes; lists of equal length.

    - `prompts`: the text of each prompt's last user message;
    - `responses`: the decoded outputs: strings, images, waveforms, as the modality gives them;
    - `records`: the records, with metadata such as gold answers (`record.metadata`).

    It returns one number a response, as a list, an array or a tensor; NaN for no score. The function is imported when
    the reward is built, so a wrong name fails before anything heavy loads.

        def brevity(responses):
            return [-len(response) / 100 for response in responses]
    """

    def __init__(self, function: str) -> None:
        self.function = load_function(function)
        self._arguments = _accepted_arguments(self.function, function)

    def score(self, samples: Sequence[Sample]) -> Sequence[float]:
        """Returns what the function returns; the engine checks it."""
        columns = {
            "prompts": [sample.record.prompt_text for sample in samples],
            "responses": [sample.output for sample in samples],
            "records": [sample.record for sample in samples],
        }
        scores: Sequence[float] = self.function(**{name: columns[name] for name in self._arguments})
        return scores


def load_function(path: str) -> Callable[..., Any]:
    """Imports the function that a config names; the forms are those of `PythonFunctionConfig`.

    What else a module raises while it is imported is a bug in it, and passes with its traceback.

    Raises:
        ConfigError: there is no such file, module or function, or it cannot be imported or called.
    """
    file_name, _, in_file = path.rpartition(":")
    if file_name.endswith(".py"):
        function = _find(_load_file(Path(file_name)), in_file, path)
    else:
        function = _load_dotted(path)
    if not callable(function):
        raise ConfigError(f"{_WHERE}: {path!r} is a {type(function).__name__}, expected a function")
    loaded: Callable[..., Any] = function
    return loaded


def _load_file(file: Path) -> ModuleType:
    resolved = file.resolve()
    # A name of its own, so that the file neither hides nor becomes another module; the same file is loaded once.
    name = f"mmalign_function_{hashlib.sha256(str(resolved).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, resolved)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{_WHERE}: {str(file)!r} is not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, OSError) as error:
        del sys.modules[name]
        raise ConfigError(f"{_WHERE}: cannot import {str(file)!r}: {type(error).__name__}: {error}") from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_dotted(path: str) -> Any:
    module_name, separator, attribute = path.partition(":")
    if not separator:
        module_name, _, attribute = path.rpartition(".")
    if not module_name or not attribute or module_name.startswith("."):
        expected = "expected 'package.module.function' or 'path/file.py:function'"
        raise ConfigError(f"{_WHERE}: got {path!r}; {expected}")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError, OSError) as error:
        hint = "name a file that is not installed as 'path/file.py:function'"
        raise ConfigError(f"{_WHERE}: cannot import {module_name!r}: {error}; {hint}") from error
    return _find(module, attribute, path)


def _find(module: ModuleType, attribute: str, path: str) -> Any:
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        names = [name for name, value in vars(module).items() if inspect.isroutine(value) and name[0] != "_"]
        raise ConfigError(f"{_WHERE}: {path!r} has no {attribute!r}{suggest(attribute, names)}") from None


def _accepted_arguments(function: Callable[..., Any], path: str) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{_WHERE}: {path!r} has no signature to read; wrap it in a Python function") from error
    kinds = {parameter.kind for parameter in parameters}
    named = [parameter for parameter in parameters if parameter.kind not in _VARIADIC]
    for parameter in named:
        given = parameter.name in _ARGUMENTS and parameter.kind is not parameter.POSITIONAL_ONLY
        if parameter.default is parameter.empty and not given:
            raise ConfigError(f"{_WHERE}: {path!r} needs {parameter.name!r}, but is called with {_CALL} by name")
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return _ARGUMENTS
    accepted = tuple(parameter.name for parameter in named if parameter.name in _ARGUMENTS)
    if not accepted:
        raise ConfigError(f"{_WHERE}: {path!r} takes none of {_CALL}, so it cannot see what it scores")
    return accepted
