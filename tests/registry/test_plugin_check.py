"""Import strings to nowhere are named: by reading the sources, and for certain by importing everything."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from mmalign.plugins.broken_strings import find_broken
from mmalign.plugins.registry import load_registry

SPECS = """
    import mmalign

    class Config(mmalign.Parameters):
        pass

    class Good:
        pass

    @mmalign.hookimpl
    def register_rewards():
        targets = {targets}
        return [
            mmalign.RewardSpec(name=f"r{{n}}", summary="x", target=target, config="checked_here:Config")
            for n, target in enumerate(targets)
        ]
"""


def write_plugin(folder: Path, *targets: str) -> Path:
    file = folder / "checked_here.py"
    file.write_text(textwrap.dedent(SPECS.format(targets=list(targets))))
    return file


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("checked_here:Goood", "'checked_here' has no 'Goood'"),
        ("no_such_module_here:Good", "there is no module 'no_such_module_here'"),
        ("mmalign.no_such_part:Good", "there is no module 'mmalign.no_such_part'"),
    ],
)
def test_a_string_to_nowhere_is_named_with_its_part(target: str, error: str, tmp_path: Path) -> None:
    registry = load_registry(files=[write_plugin(tmp_path, "checked_here:Good", target)])
    (broken,) = find_broken(registry, load=False)
    assert broken.part == "reward 'r1'" and broken.plugin == "checked_here" and error in broken.error
    own = [one for one in find_broken(registry, load=True) if one.plugin == "checked_here"]
    assert [one.part for one in own] == ["reward 'r1'"]


def test_every_import_string_of_this_distribution_leads_somewhere() -> None:
    assert find_broken(load_registry(), load=False) == []


@pytest.mark.slow
def test_every_import_string_of_this_distribution_loads() -> None:
    assert find_broken(load_registry(), load=True) == []
