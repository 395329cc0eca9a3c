"""The page on the architecture is right in every arrow: its table of imports is that of the code."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "mmalign"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TABLE = {
    match[1]: re.findall(r"`(\w+)`", match[2])
    for match in re.finditer(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", PAGE.partition("## Who may")[0], re.MULTILINE)
}


def package_of(file: Path) -> str:
    return file.relative_to(CORE).with_suffix("").parts[0]


PACKAGES = sorted({name for name in map(package_of, CORE.rglob("*.py")) if not name.startswith("__")})


def imported(file: Path) -> Iterator[str]:
    """Yields the packages of the core that a file imports, inside functions and for annotations, too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "mmalign":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmalign."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mmalign."))


def test_every_package_has_a_row() -> None:
    assert sorted(TABLE) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_are_those_of_the_code(package: str) -> None:
    files = [file for file in CORE.rglob("*.py") if package_of(file) == package]
    found = {name for file in files for name in imported(file) if name in PACKAGES} - {package}
    assert sorted(TABLE[package]) == sorted(found)


def test_rows_stand_in_the_order_of_the_layers() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    level = {name: index for index, layer in enumerate(layers) for name in re.split(r" [|:] ", layer)}
    assert [level[name] for name in TABLE] == sorted(level[name] for name in TABLE)
