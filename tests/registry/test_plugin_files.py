"""Plugin files that are not installed, and what a run records of the plugins it used."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmalign import __version__
from mmalign.errors import ConfigError, PluginError
from mmalign.import_strings import load_object
from mmalign.plugins.loading import load_plugins, provenance

OBSERVER = """
    import mmalign
    @mmalign.hookimpl
    def on_step_ended(run, metrics):
        run.append(__name__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose modules are forgotten after the test."""
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def write_file(path: Path, code: str) -> Path:
    path.write_text(textwrap.dedent(code), encoding="utf-8")
    return path


def test_file_is_a_plugin_named_by_its_stem(folder: Path) -> None:
    file = write_file(folder / "my_observer.py", OBSERVER)
    plugin_set = load_plugins(files=[file])
    assert plugin_set["my_observer"].status == "ok"
    assert plugin_set["decodings"].status == "ok"
    assert sys.modules["my_observer"].__file__ == str(file)
    assert load_plugins(files=[file], disabled=["my_observer"])["my_observer"].status == "disabled"


def test_edited_file_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = write_file(folder / "my_version.py", OBSERVER + "    number = 1\n")
    load_plugins(files=[file])
    stat = file.stat()
    write_file(file, OBSERVER + "    number = 2\n")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    load_plugins(files=[file])
    assert sys.modules["my_version"].number == 2


def test_file_of_the_same_name_elsewhere_takes_its_place(folder: Path) -> None:
    (folder / "other").mkdir()
    load_plugins(files=[write_file(folder / "my_place.py", OBSERVER)])
    file = write_file(folder / "other" / "my_place.py", OBSERVER)
    assert load_plugins(files=[file])["my_place"].file == str(file)


def test_file_that_cannot_be_used_always_stops(folder: Path) -> None:
    write_file(folder / "my_loss.py", "1 / 0")
    with pytest.raises(PluginError, match=r"my_loss\.py: import failed: ZeroDivisionError"):
        load_plugins(files=[folder / "my_loss.py"])
    assert "my_loss" not in sys.modules
    with pytest.raises(ConfigError, match=r"no such file .*; did you mean 'my_loss\.py'"):
        load_plugins(files=[folder / "my_los.py"])
    with pytest.raises(ConfigError, match=r"expected a \.py file whose name is a Python name"):
        load_plugins(files=[write_file(folder / "my-loss.py", "")])


@pytest.mark.parametrize("name", ["json", "sys", "colorsys"])
def test_file_must_not_hide_a_module(folder: Path, name: str) -> None:
    with pytest.raises(PluginError, match=f"hides the module '{name}'"):
        load_plugins(files=[write_file(folder / f"{name}.py", OBSERVER)])


def test_allow_list_is_about_installed_plugins_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMALIGN_PLUGINS", "decodings")
    infos = load_plugins(files=[write_file(folder / "my_allowed.py", OBSERVER)]).infos
    assert [info.name for info in infos if info.status == "ok"] == ["decodings", "my_allowed"]


def test_provenance_lists_usable_plugins(folder: Path) -> None:
    file = write_file(folder / "my_source.py", OBSERVER)
    rows = {row["name"]: row for row in provenance(load_plugins(files=[file], disabled=["rewards"]))}
    assert "rewards" not in rows
    assert rows["decodings"] == {"name": "decodings", "distribution": "mmalign", "version": __version__}
    assert rows["my_source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


USES_NEIGHBOURS = """
    import mmalign
    from near_helpers import FACTOR

    @mmalign.hookimpl
    def register_rewards():
        target, config = "near_rewards:Near", "near_rewards:Config"
        return [mmalign.RewardSpec(name="near", summary="Near.", target=target, config=config)]
"""
NEAR_REWARDS = """
    import mmalign
    from near_package.inner import NUMBER

    class Config(mmalign.Parameters):
        pass

    class Near:
        number = NUMBER
"""


def test_a_file_imports_and_names_what_stands_beside_it(folder: Path) -> None:
    write_file(folder / "near_helpers.py", "FACTOR = 2\n")
    write_file(folder / "near_rewards.py", NEAR_REWARDS)
    (folder / "near_package").mkdir()
    write_file(folder / "near_package" / "__init__.py", "")
    write_file(folder / "near_package" / "inner.py", "NUMBER = 7\n")
    write_file(folder / "near_unmentioned.py", "")
    file = write_file(folder / "near_plugin.py", USES_NEIGHBOURS)
    before = list(sys.path)
    assert load_plugins(files=[file])["near_plugin"].status == "ok"
    assert sys.modules["near_plugin"].FACTOR == 2
    assert load_object("near_rewards:Near").number == 7
    assert sys.path == before
    assert importlib.util.find_spec("near_unmentioned") is None


def test_an_edited_neighbour_is_read_again(folder: Path) -> None:
    write_file(folder / "near_helpers.py", "FACTOR = 2\n")
    file = write_file(folder / "near_plugin.py", USES_NEIGHBOURS)
    load_plugins(files=[file])
    write_file(folder / "near_helpers.py", "FACTOR = 3\n")
    load_plugins(files=[file])
    assert sys.modules["near_plugin"].FACTOR == 3


def test_neighbours_of_one_name_in_two_folders_are_refused(folder: Path) -> None:
    files = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        write_file(folder / name / "near_helpers.py", "FACTOR = 2\n")
        files.append(write_file(folder / name / f"near_{name}.py", USES_NEIGHBOURS))
    with pytest.raises(
        PluginError, match=r"near_two.py: mentions 'near_helpers', a file beside it, but another module"
    ):
        load_plugins(files=files)
    assert load_plugins(files=files[1:])["near_two"].status == "ok"


def test_a_neighbour_must_not_have_the_name_of_an_installed_module(folder: Path) -> None:
    write_file(folder / "yaml.py", "raise RuntimeError('never imported')\n")
    file = write_file(folder / "near_yaml.py", "import yaml\n" + textwrap.dedent(OBSERVER))
    with pytest.raises(PluginError, match=r"mentions 'yaml', a file beside it, but another module has that name, too"):
        load_plugins(files=[file])
