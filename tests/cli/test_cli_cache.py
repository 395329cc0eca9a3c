"""`mmalign cache`: shows and removes what mmalign keeps, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmalign import ConfigError, cache_folder
from mmalign.cli.cache import clear
from mmalign.cli.main import main
from mmalign.references.row_store import RowStore


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with a converted model, half of another, and three rows; beside it a folder of the user's."""
    root = tmp_path / "cache"
    monkeypatch.setenv("MMALIGN_CACHE", str(root))
    for name in ("model-1", ".unfinished"):
        (cache_folder("gguf") / name).mkdir()
    (cache_folder("gguf") / "model-1" / "weights").write_bytes(bytes(2 * 2**20))
    RowStore(cache_folder("reference_logps") / "rows.sqlite").add({b"a": b"1", b"b": b"2", b"c": b"3"})
    (root / "thesis").mkdir()
    (root / "thesis" / "chapter.txt").write_text("years of work")
    return root


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mmalign", "cache", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_info_counts_entries_and_bytes(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "info") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(root)
    assert [line.split() for line in lines[1:]] == [
        ["gguf", "1", "entries", "2.0", "MiB"],
        ["reference_logps", "3", "entries", "0.0", "MiB"],
    ]


def test_info_as_json(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "info", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["folder"] == str(root)
    assert shown["kinds"]["gguf"] == {"entries": 1, "bytes": 2 * 2**20}
    assert shown["kinds"]["reference_logps"]["entries"] == 3


def test_clear_removes_one_kind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "clear", "--kind", "gguf") == 0
    assert sorted(path.name for path in root.iterdir()) == ["reference_logps", "thesis"]


def test_clear_removes_all_but_what_is_not_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "clear") == 0
    assert [path.name for path in root.iterdir()] == ["thesis"]
    assert (root / "thesis" / "chapter.txt").is_file()
    assert capsys.readouterr().out.splitlines()[0] == "removed gguf, 2.0 MiB"
    assert run(monkeypatch, "clear") == 0
    assert "nothing is kept" in capsys.readouterr().out


def test_a_kind_that_is_not_there_is_an_error_and_removes_nothing(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"'ggufs' is kept; did you mean 'gguf'\? known: gguf, reference_logps"):
        clear(["reference_logps", "ggufs"])
    with pytest.raises(ConfigError, match="'thesis'"):
        clear(["thesis"])
    assert len(list(root.iterdir())) == 3


def test_a_folder_elsewhere_is_not_followed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "gguf").rename(tmp_path / "elsewhere")
    (root / "gguf").symlink_to(tmp_path / "elsewhere")
    assert run(monkeypatch, "clear") == 0
    assert (tmp_path / "elsewhere" / "model-1").is_dir()


def test_the_cache_is_in_the_users_home_unless_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMALIGN_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("gguf") == tmp_path / ".cache" / "mmalign" / "gguf"
    monkeypatch.setenv("MMALIGN_CACHE", "~/moved")
    assert cache_folder("gguf") == tmp_path / "moved" / "gguf"
