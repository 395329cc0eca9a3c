"""How a plugin's function is called, read from its source without importing it.

The parameters of a loss say what it needs. A module with a loss imports torch, so planning a run, listing parts and
reading a signature must not import it: a plain `def` is read from the file; anything else (decorated, built, imported
from elsewhere) is imported after all.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmalign.errors import PluginError, suggest
from mmalign.import_strings import plugin_code

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class Signature:
    """The parameters of a function.

    Attributes:
        name: of the function; of a class whose method is read, `Class.method`.
        file: where it is defined; empty if that is not known.
        line: of its `def`.
        positional: parameters before `*`.
        keywords: parameters behind `*`.
        defaults: those of both that have a default.
        variadic: `*args` and `**options`, as they are written.
        builds: True if the import string names a function where the class of a module was looked for.
    """

    name: str
    file: str
    line: int
    positional: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    defaults: frozenset[str] = frozenset()
    variadic: tuple[str, ...] = ()
    builds: bool = False

    @property
    def place(self) -> str:
        """The function with its file and line, for messages."""
        return f"{self.name} ({self.file}, line {self.line})" if self.file else self.name

    @property
    def takes_any_keyword(self) -> bool:
        """True if a parameter `**options` takes every keyword."""
        return any(one.startswith("**") for one in self.variadic)


def read_signature(path: str, method: str = "") -> Signature:
    """Reads the signature of what an import string such as `"package.module:function"` names.

    Args:
        method: of a class, read in its place; a function in the place of the class is said to build (`builds`).

    Raises:
        PluginError: there is no such module or attribute, or it cannot be called.
    """
    module, _, attribute = path.partition(":")
    file = _find_source(module, path)
    found = _find_definition(file, attribute) if file else None
    if isinstance(found, ast.ClassDef) and method:
        own = next((one for one in found.body if isinstance(one, Function) and one.name == method), None)
        if own is not None and not own.decorator_list:
            return _from_source(own, file, f"{attribute}.{method}", skip=1)
    elif isinstance(found, Function):
        return _from_source(found, file, attribute, builds=bool(method))
    return _from_object(path, attribute, method)


def as_builder(signature: Signature, skip: int = 0) -> Signature:
    """Takes positional parameters, `skip` of them apart, for keywords: a class is built with keywords."""
    return replace(signature, positional=(), keywords=(*signature.positional[skip:], *signature.keywords))


def resolve(path: str) -> None:
    """Checks that an import string leads somewhere, without running its module where the source tells.

    Raises:
        PluginError: it does not.
    """
    module, _, attribute = path.partition(":")
    file = _find_source(module, path)
    if not file or attribute.partition(".")[0] not in _find_names(file):
        from mmalign.import_strings import load_object

        load_object(path)


def _find_source(module: str, path: str) -> str:
    """Finds the Python file of a module, importing no more than its parent packages; empty if there is none."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        return str(getattr(loaded, "__file__", None) or "")
    with plugin_code(f"import string {path!r}: import failed"):
        spec = importlib.util.find_spec(module)
    if spec is None:
        raise PluginError(f"import string {path!r}: there is no module {module!r}")
    return str(spec.origin) if spec.origin and spec.origin.endswith(".py") else ""


def _parse(file: str) -> ast.Module:
    stat = Path(file).stat()
    return _parse_version(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)
def _parse_version(file: str, time: int, size: int) -> ast.Module:
    with plugin_code(f"{file} cannot be read"):
        return ast.parse(Path(file).read_text(encoding="utf-8"), file)


def _find_definition(file: str, attribute: str) -> Definition | None:
    """Finds the only, undecorated definition of a name at the top level of a file."""
    definitions = [one for one in _parse(file).body if attribute in _names_of(one)]
    only = definitions[0] if len(definitions) == 1 else None
    return only if isinstance(only, Definition) and not only.decorator_list else None


def _find_names(file: str) -> set[str]:
    return {name for one in _parse(file).body for name in _names_of(one)}


def _names_of(statement: ast.stmt) -> set[str]:
    if isinstance(statement, Definition):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {one.id for one in targets if isinstance(one, ast.Name)}


def _from_source(function: Function, file: str, name: str, *, skip: int = 0, builds: bool = False) -> Signature:
    own = function.args
    positional = [one.arg for one in (*own.posonlyargs, *own.args)]
    defaults = set(positional[len(positional) - len(own.defaults) :])
    defaults |= {one.arg for one, value in zip(own.kwonlyargs, own.kw_defaults, strict=True) if value is not None}
    variadic = [f"*{own.vararg.arg}"] if own.vararg else []
    variadic += [f"**{own.kwarg.arg}"] if own.kwarg else []
    return Signature(
        name=name,
        file=file,
        line=function.lineno,
        positional=tuple(positional[skip:]),
        keywords=tuple(one.arg for one in own.kwonlyargs),
        defaults=frozenset(defaults),
        variadic=tuple(variadic),
        builds=builds,
    )


def _from_object(path: str, attribute: str, method: str) -> Signature:
    from mmalign.import_strings import load_object

    found = load_object(path)
    builds = bool(method) and not isinstance(found, type)
    function = getattr(found, method, None) if method and not builds else found
    if not callable(function):
        known = [name for name, value in vars(found).items() if callable(value)] if isinstance(found, type) else []
        raise PluginError(f"import string {path!r}: {method or attribute!r} is no function{suggest(method, known)}")
    return _from_signature(function, f"{attribute}.{method}" if method and not builds else attribute, builds)


def _from_signature(function: Callable[..., Any], name: str, builds: bool) -> Signature:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        raise PluginError(f"{name}: Python cannot tell its parameters; write a plain function") from None
    if "." in name:  # a method, read from its class
        parameters = parameters[1:]
    code = getattr(inspect.unwrap(function), "__code__", None)
    kinds = inspect.Parameter
    places = (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    return Signature(
        name=name,
        file=getattr(code, "co_filename", ""),
        line=getattr(code, "co_firstlineno", 0),
        positional=tuple(one.name for one in parameters if one.kind in places),
        keywords=tuple(one.name for one in parameters if one.kind is kinds.KEYWORD_ONLY),
        defaults=frozenset(one.name for one in parameters if one.default is not kinds.empty),
        variadic=tuple(str(one) for one in parameters if one.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)),
        builds=builds,
    )
