"""The keys of a part read from the source of its config model, so that a misspelt one is found before torch loads.

Most losses stand in one module with their config model, and importing that module imports torch. The field names can
be read from the class body. Where the source does not tell for certain (a validator that runs first, an alias, a base
class that is computed), nothing is said here, and the model itself answers later.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

_ROOT = ("mmalign.contract.specs", "Parameters")
_HEAVY = frozenset({"torch", "transformers", "diffusers", "peft", "accelerate", "datasets"})
_RENAMING = frozenset({"alias", "validation_alias"})


def declared_keys(path: str) -> frozenset[str] | None:
    """Reads the keys that the config model `package.module:Class` takes; None if its source does not tell."""
    module, _, name = path.partition(":")
    return _class_keys(module, name)


def imports_heavy(path: str) -> bool:
    """Returns whether the module of an import string imports torch or a library on top of it, or cannot be read."""
    tree = _parse(path.partition(":")[0])
    return tree is None or any(name.partition(".")[0] in _HEAVY for name in _imported_modules(tree.body))


def _class_keys(module: str, name: str) -> frozenset[str] | None:
    if (module, name) == _ROOT:
        return frozenset()
    tree = _parse(module)
    for node in _top_level(tree.body if tree else ()):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _with_bases(module, node)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _class_keys(node.module, alias.name)
    return None


def _with_bases(module: str, node: ast.ClassDef) -> frozenset[str] | None:
    own = _own_keys(node)
    if own is None or not node.bases or node.keywords or node.decorator_list:
        return None
    keys = set(own)
    for base in node.bases:
        inherited = _class_keys(module, base.id) if isinstance(base, ast.Name) else None
        if inherited is None:
            return None
        keys |= inherited
    return frozenset(keys)


def _own_keys(node: ast.ClassDef) -> set[str] | None:
    keys: set[str] = set()
    for statement in node.body:
        if isinstance(statement, ast.Assign) and any(_is_named(target, "model_config") for target in statement.targets):
            return None
        if isinstance(statement, ast.FunctionDef) and any(map(_runs_first, statement.decorator_list)):
            return None
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if isinstance(statement.value, ast.Call) and _keywords(statement.value) & _RENAMING:
                return None
            if "ClassVar" not in ast.unparse(statement.annotation) and not statement.target.id.startswith("_"):
                keys.add(statement.target.id)
    return keys


def _runs_first(decorator: ast.expr) -> bool:
    """Returns whether a decorator makes a validator that sees the keys before the model does."""
    text = ast.unparse(decorator)
    return text.startswith("model_validator") and "after" not in text


def _keywords(call: ast.Call) -> set[str]:
    return {keyword.arg for keyword in call.keywords if keyword.arg}


def _is_named(target: ast.expr, name: str) -> bool:
    return isinstance(target, ast.Name) and target.id == name


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        # A package may name what it offers for type checkers only, and load it on first use.
        if isinstance(node, ast.If) and _is_named(node.test, "TYPE_CHECKING"):
            yield from node.body


def _imported_modules(body: Iterable[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@functools.lru_cache(maxsize=64)
def _parse(module: str) -> ast.Module | None:
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (ImportError, ValueError, OSError, SyntaxError, RecursionError):
        return None
