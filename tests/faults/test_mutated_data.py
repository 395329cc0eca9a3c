"""Five hundred data files with something wrong: each is read, set aside or refused; none is a traceback or a hang."""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from pathlib import Path

import pytest
from data_mutations import build_file

from mmalign.config.data import DataConfig
from mmalign.errors import DataError, MmalignError
from mmalign.sources.source import open_source
from mmalign.sources.writing import write_records

COUNT = 500
PARTS = 10
MEMORY = 300 * 2**10  # KiB
SECONDS = 5.0


def read(path: Path, on_error: str) -> str:
    """Reads a file as a run would; returns what came of it."""
    try:
        records = list(open_source(DataConfig(path=str(path), on_error=on_error)))
    except MmalignError as error:
        assert str(error).encode(), "an error that cannot be printed"
        assert path.name in str(error)
        return "refused"
    for record in records:
        record.to_json().encode()
        assert record.metadata is not None and record.count_pairs() >= 0
    write_records(records, path.with_name("out.jsonl"))
    return "read"


@pytest.mark.parametrize("part", range(PARTS))
def test_no_file_is_a_traceback(part: int, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for seed in range(part, COUNT, PARTS):
        ending, content = build_file(seed)
        path = tmp_path / f"d{seed}.{ending}"
        path.write_bytes(content)
        started = time.monotonic()
        outcomes[read(path, "raise")] += 1
        outcomes[f"quarantine: {read(path, 'quarantine')}"] += 1
        assert time.monotonic() - started < SECONDS, f"seed {seed} takes long"
        for side in tmp_path.glob("*.quarantine.jsonl"):
            rows = [json.loads(line) for line in side.read_text(encoding="utf-8").splitlines()]
            assert all(row["reason"] and row["line"] >= 1 for row in rows)
            side.unlink()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    # The mutations are neither harmless nor hopeless.
    assert outcomes["refused"] > 5 and outcomes["quarantine: read"] > 5


def test_the_files_are_the_same_on_every_machine() -> None:
    assert build_file(7) == build_file(7)
    assert {build_file(seed)[0] for seed in range(40)} == {"jsonl", "jsonl.gz", "json", "csv", "tar", "parquet"}


def test_a_layout_that_raises_is_named_and_its_row_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign_formats.trl import Trl

    def fail(*_: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr(Trl, "read", fail)
    (tmp_path / "d.jsonl").write_text('{"prompt": "q"}\n')
    with pytest.raises(
        DataError,
        match=r"d.jsonl:1: format 'trl' of mmalign_formats failed: KeyError: 'gone' \(.*test_mutated_data.py, line",
    ):
        open_source(DataConfig(path=str(tmp_path / "d.jsonl")))
