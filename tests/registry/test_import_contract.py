"""Who may import whom: the core no plugin, a plugin only what `mmalign` exports, and nothing heavy before it must."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmalign

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path.parent.name for path in ROOT.glob("plugins/*/__init__.py"))
PLUGIN_FILES = sorted(ROOT.glob("plugins/**/*.py"))
EXAMPLE_FILES = sorted(path for path in ROOT.glob("examples/**/*.py") if "tests" not in path.parts)
HEAVY = ("torch", "transformers", "datasets", "accelerate", "peft", "diffusers")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def iter_imports(source: str) -> Iterator[tuple[str, str]]:
    """Yields (module, name) of every import, inside functions too; name is empty for `import module`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module or "", alias.name) for alias in node.names)


def find_forbidden(source: str, own: str) -> list[str]:
    """Lists what a plugin in package `own` may not do."""
    wrong = []
    for module, name in iter_imports(source):
        package = module.partition(".")[0]
        if package in PLUGINS and package != own:
            wrong.append(f"imports the plugin {package}")
        if package == "mmalign" and module != "mmalign":
            wrong.append(f"imports {module}; only names of `mmalign` itself are public")
        if module == "mmalign" and name and name not in mmalign.__all__:
            wrong.append(f"imports {name}, which mmalign does not export")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mmalign":
            wrong += [] if node.attr in mmalign.__all__ else [f"uses mmalign.{node.attr}, which is not exported"]
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            target = re.fullmatch(r"(mmalign\w*)[\w.]*:\w+", node.value)
            wrong += [f"names {node.value}, a part of another package"] if target and target.group(1) != own else []
    return wrong


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=relative)
def test_a_plugin_uses_only_what_mmalign_exports(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[0]
    assert find_forbidden(path.read_text(encoding="utf-8"), own) == []


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=relative)
def test_an_example_uses_only_what_mmalign_exports(path: Path) -> None:
    assert find_forbidden(path.read_text(encoding="utf-8"), path.parent.name) == []


@pytest.mark.parametrize(
    "source",
    [
        "import mmalign.compute.backend",
        "from mmalign.contract.components import Reward",
        "from mmalign import compute",
        "def f():\n    from mmalign import no_such_name",
        "import mmalign\nmmalign.compute",
        "TARGET = 'mmalign.compute.backend:Backend'",
        "from mmalign_rewards.length import Length",
        "TARGET = 'mmalign_rewards.length:Length'",
    ],
)
def test_the_check_finds_what_is_forbidden(source: str) -> None:
    assert find_forbidden(source, "mmalign_text")


def test_the_check_lets_pass_what_is_allowed() -> None:
    source = (
        "import mmalign\nfrom mmalign import Reward, hookimpl\nimport torch\nmmalign.Record\nX = 'mmalign_text.a:B'"
    )
    assert find_forbidden(source, "mmalign_text") == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("mmalign/**/*.py")), ids=relative)
def test_the_core_names_no_plugin(path: Path) -> None:
    found = re.findall(rf"\b(?:{'|'.join(PLUGINS)})\b", path.read_text(encoding="utf-8"))
    assert found == []


def test_the_import_linter_knows_every_plugin() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = {contract["type"]: contract for contract in config["contracts"]}
    assert config["root_packages"] == ["mmalign", *PLUGINS]
    assert contracts["forbidden"]["forbidden_modules"] == PLUGINS
    assert contracts["independence"]["modules"] == PLUGINS


def test_every_plugin_is_an_entry_point() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert sorted(config["project"]["entry-points"]["mmalign"].values()) == PLUGINS


def test_type_checkers_and_python_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "mmalign" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed: dict[str, set[str]] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None
        names = {alias.name for alias in node.names}
        assert names == {alias.asname for alias in node.names}, "write `from x import A as A`"
        typed.setdefault(node.module.removeprefix("mmalign."), set()).update(names)
    assert typed == {module: set(names) for module, names in mmalign._EXPORTS.items()}


@pytest.mark.parametrize("name", mmalign.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(mmalign, name) is not None


def test_a_name_that_is_not_exported_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = mmalign.no_such_name


def load_in_fresh_interpreter(modules: list[str]) -> list[str]:
    """Returns the heavy packages that importing `modules` loads."""
    code = f"import sys, {', '.join(modules)}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.split()


@pytest.mark.parametrize(
    "modules",
    [["mmalign"], ["mmalign.hookspecs", "mmalign.contract.components", "mmalign.errors"], PLUGINS],
    ids=["package", "contract", "plugins"],
)
def test_registration_loads_nothing_heavy(modules: list[str]) -> None:
    assert load_in_fresh_interpreter(modules) == []


def test_the_check_for_heavy_imports_sees_torch() -> None:
    assert "torch" in load_in_fresh_interpreter(["torch"])


def test_plugins_register_without_side_effects() -> None:
    for name in PLUGINS:
        module = importlib.import_module(name)
        hooks = [value for value in vars(module).values() if callable(value) and hasattr(value, "mmalign_impl")]
        assert hooks, f"{name} registers nothing"
