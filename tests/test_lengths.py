"""No function of the library is longer than a screen: 50 lines, docstring and signature included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 50


@pytest.mark.parametrize("root", ["mmalign", "plugins", "examples"])
def test_no_function_is_longer_than_a_screen(root: str) -> None:
    files = sorted((ROOT / root).rglob("*.py"))
    assert files
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= LIMIT
    ]
    assert long == []
