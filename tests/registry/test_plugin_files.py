"""Plugin files that are not installed, and what a run records of the plugins it used."""

from __future__ import annotations

import hashlib
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmalign import __version__
from mmalign.errors import ConfigError, PluginError
from mmalign.plugins import load_plugins, provenance

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
