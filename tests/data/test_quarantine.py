"""Bad rows of a data file go to a side file, if the configuration says so; writers leave no half file."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmalign.config.data import DataConfig
from mmalign.errors import DataError
from mmalign.sources.source import Source, open_source
from mmalign.sources.writing import write_rows

ROWS = [{"prompt": f"q{index}", "completion": f"a{index}"} for index in range(5)]


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path: Path | str, **settings: Any) -> Source:
    return open_source(DataConfig(path=str(path), **settings))


def test_bad_rows_go_to_the_side_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"prompt": "q"}\n{"prompt"\n{"prompt": "\xff"}\n{"prompt": 3}\n')
    with caplog.at_level(logging.WARNING):
        source = load(path, on_error="quarantine")
    lines = [json.loads(line) for line in (tmp_path / "d.quarantine.jsonl").read_text().splitlines()]
    assert (len(source), source.quarantined) == (1, 3)
    assert [line["line"] for line in lines] == [2, 3, 4]
    assert set(lines[0]) == {"file", "line", "reason", "text"}
    assert (lines[0]["text"], "0xff" in lines[1]["reason"]) == ('{"prompt"', True)
    assert caplog.text.count("3 bad rows left out") == 1


def test_side_file_is_replaced_by_the_next_pass(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", [ROWS[0], 3])
    for _ in range(2):
        load(path, on_error="quarantine", quarantine_dir=str(tmp_path / "side"))
    assert len((tmp_path / "side" / "d.quarantine.jsonl").read_text().splitlines()) == 1


def test_bad_rows_of_tables_are_written_as_json(tmp_path: Path) -> None:
    write_rows([{"prompt": "q", "margin": 1}, {"prompt": "", "chosen": "a"}], tmp_path / "d.parquet")
    assert load(tmp_path / "d.parquet", on_error="quarantine").quarantined == 1
    (line,) = (tmp_path / "d.quarantine.jsonl").read_text().splitlines()
    assert json.loads(json.loads(line)["text"])["chosen"] == "a"


def test_only_one_process_writes_the_side_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert load(write_lines(tmp_path / "d.jsonl", [ROWS[0], 3]), on_error="quarantine").quarantined == 1
    assert not (tmp_path / "d.quarantine.jsonl").exists()


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    write_rows(ROWS, path)
    before = path.read_bytes()

    def fail_in_the_middle() -> Iterator[dict[str, Any]]:
        yield {"prompt": "new"}
        raise DataError("stop")

    with pytest.raises(DataError, match="stop"):
        write_rows(fail_in_the_middle(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.jsonl"]


def test_gzip_output_is_gzip(tmp_path: Path) -> None:
    write_rows(ROWS, tmp_path / "d.jsonl.gz")
    with gzip.open(tmp_path / "d.jsonl.gz", "rt") as file:
        assert len(file.readlines()) == 5
