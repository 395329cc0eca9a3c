"""Wrong versions of functions of tensors: the code is exchanged in place, so that every reference sees it.

A mutant changes one thing at the beginning of a function: a parameter is negated, detached or shifted, a mask is
dropped, two parameters are exchanged.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One wrong version of a function.

    Attributes:
        function: import string.
        change: what is wrong, for the list.
        statement: what the function begins with.
    """

    function: str
    change: str
    statement: str

    def __str__(self) -> str:
        return f"{self.function.rpartition('.')[2]}: {self.change}"


def load_function(path: str) -> FunctionType | None:
    """Finds a plain function; None for one that another function built."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    plain = isinstance(found, FunctionType) and not found.__closure__ and found.__name__ == name
    return found if plain else None


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """Exchanges the code of the function inside the block."""
    function = load_function(mutant.function)
    assert function is not None
    before = function.__code__
    function.__code__ = _compile(function, mutant)
    try:
        yield
    finally:
        function.__code__ = before


def _compile(function: FunctionType, mutant: Mutant) -> CodeType:
    node = _definition(function)
    has_docstring = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
    node.body[int(has_docstring) : int(has_docstring)] = ast.parse(mutant.statement).body
    module = ast.fix_missing_locations(ast.Module([node], []))
    namespace: dict[str, Any] = dict(function.__globals__)
    exec(compile(module, f"<{mutant}>", "exec", __future__.annotations.compiler_flag), namespace)
    code: CodeType = namespace[function.__name__].__code__
    return code


def _definition(function: FunctionType) -> ast.FunctionDef:
    source = inspect.getsource(importlib.import_module(function.__module__))
    found = next(
        one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef) and one.name == function.__name__
    )
    return found
