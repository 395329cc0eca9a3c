"""Import strings of plugins that lead nowhere: found by reading sources, or, for certain, by importing everything."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmalign.errors import PluginError
from mmalign.registry import KINDS, Registry, load_object
from mmalign.specs import Spec

_ATTRIBUTES = ("config", "target", "loss", "function", "compute", "module")


class BrokenString(NamedTuple):
    """An import string that leads nowhere, and whose it is."""

    plugin: str
    part: str
    error: str

    def __str__(self) -> str:
        return f"plugin {self.plugin!r}: {self.part}: {self.error}"


def find_broken(registry: Registry, *, load: bool) -> list[BrokenString]:
    """Finds import strings of available parts that lead nowhere.

    Args:
        load: import what every string names; else only read the sources, which misses what they do not tell.
    """
    entries = [entry for kind in (*KINDS, "conformance") for entry in registry.entries(kind)]
    broken = []
    for entry in entries:
        if entry.unavailable:
            continue
        for attribute, string in iter_import_strings(entry.spec):
            if error := _load_error(string) if load else source_error(string):
                name = getattr(entry.spec, "name", "") or entry.spec.method
                broken.append(BrokenString(entry.plugin.name, f"{entry.spec.kind} {name!r}: {attribute}", error))
    return broken


def iter_import_strings(spec: Spec | Any) -> Iterator[tuple[str, str]]:
    """Yields every attribute of a spec that is an import string, and the string."""
    for attribute in _ATTRIBUTES:
        if string := getattr(spec, attribute, ""):
            yield attribute, string


def source_error(string: str) -> str:
    """Says why an import string leads nowhere, as far as the source tells without running it; empty if it may lead."""
    module, _, attribute = string.partition(":")
    names = _bound_names(module)
    if names is None:
        return f"import string {string!r}: there is no module {module!r}"
    if names and attribute.partition(".")[0] not in names:
        return f"import string {string!r}: {module!r} has no {attribute!r}"
    return ""


def _load_error(string: str) -> str:
    try:
        load_object(string)
    except PluginError as error:
        return str(error)
    return ""


@functools.lru_cache(maxsize=512)
def _bound_names(module: str) -> frozenset[str] | None:
    """Lists the names that a module's source binds anywhere; empty if that is not known, None without the module."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    try:
        tree = ast.parse(Path(spec.origin or "").read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return frozenset()
    names = set(_iter_bound(tree))
    return frozenset() if names & {"*", "__getattr__"} else frozenset(names)


def _iter_bound(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
