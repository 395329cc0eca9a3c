"""The settings that a class of diffusers knows, with their defaults, read from its source.

diffusers saves all settings today; older or edited files lack some, and the class fills them in. To import a class
takes seconds, for all of its neighbours come along; `mmalign check` needs no more of it than its signature.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

UNKNOWN = object()
"""A default that is no literal, or a setting without one."""


@cache
def find_defaults(name: str) -> Mapping[str, Any] | None:
    """Returns the arguments of a network or scheduler of diffusers with their defaults; None if there is no such class.

    Lists stand for tuples, as in JSON.

    >>> find_defaults("AutoencoderKL")["scaling_factor"]
    0.18215
    """
    found = _find_class(name)
    if found is None:
        return None
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return dict(_read_arguments(node.args))
    bases = [base.id for base in found.bases if isinstance(base, ast.Name)]
    return next((defaults for base in bases if (defaults := find_defaults(base)) is not None), None)


def version() -> str:
    """Names the installed diffusers, for messages."""
    return f"diffusers {importlib.metadata.version('diffusers')}"


def as_json(value: Any) -> Any:
    """Returns a value as a file of settings holds it: lists for tuples."""
    return [as_json(one) for one in value] if isinstance(value, list | tuple) else value


def _find_class(name: str) -> ast.ClassDef | None:
    spec = importlib.util.find_spec("diffusers")
    roots = [Path(one) for one in (spec.submodule_search_locations or () if spec else ())]
    for path in (path for root in roots for part in ("models", "schedulers") for path in (root / part).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if f"\nclass {name}(" not in source:
            continue
        nodes = ast.parse(source).body
        return next(node for node in nodes if isinstance(node, ast.ClassDef) and node.name == name)
    return None


def _read_arguments(arguments: ast.arguments) -> Iterator[tuple[str, Any]]:
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)][1:]
    defaults: list[Any] = [UNKNOWN] * (len(names) - len(arguments.defaults)) + [
        _read(one) for one in arguments.defaults
    ]
    yield from zip(names, defaults, strict=True)
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield one.arg, UNKNOWN if default is None else _read(default)


def _read(node: ast.expr) -> Any:
    try:
        return as_json(ast.literal_eval(node))
    except ValueError:
        return UNKNOWN
