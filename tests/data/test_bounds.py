"""Rows that are legal but strange, or larger than is sensible: one message or one row set aside, and little memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from mmalign.config.data import DataConfig
from mmalign.contract.components import Transform
from mmalign.data.json_text import dump_json, parse_json
from mmalign.data.records import Record
from mmalign.errors import DataError
from mmalign.sources.source import Source, open_source

GOOD = '{"prompt": "q", "completion": "a"}'


def load(path: Path, **settings: Any) -> Source:
    return open_source(DataConfig(path=str(path), **settings))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "a\\ud800b"}', r"prompt: \\ud800 at character 2 is half of a surrogate pair"),
        ('{"prompt": "q", "\\udc00": 1}', r"key: \\udc00 at character 1"),
        ('{"prompt": "q", "a": [{"b": "\\ud83d"}]}', r"a\[0\].b: \\ud83d at character 1"),
        ('{"prompt": "q", "gold": ' + "9" * 5000 + "}", "not valid JSON: Exceeds the limit"),
        ('{"prompt": "q", "gold": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"prompt": "q", "gold": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        (json.dumps({**Record.from_text("q", id="x").to_dict(), "meta": '{"a": "\\ud800"}'}), "half of a surrogate"),
        (json.dumps({**Record.from_text("q", id="x").to_dict(), "meta": '{"a": ' + "[" * 5000}), "nested too deeply"),
        ('{"prompt": "q", "completion": "a", "margin": 1e999, "label": 7}', "label: expected true or false, got 7"),
    ],
)
def test_strange_json_is_a_bad_row(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(f"{GOOD}\n{line}\n")
    with pytest.raises(DataError, match=rf"d.jsonl:2: .*{reason}"):
        load(tmp_path / "d.jsonl")
    assert load(tmp_path / "d.jsonl", on_error="quarantine").quarantined == 1
    (row,) = map(json.loads, (tmp_path / "d.quarantine.jsonl").read_text(encoding="utf-8").splitlines())
    assert (row["line"], row["text"]) == (2, line)


def test_whole_surrogate_pairs_and_long_numbers_are_read(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "\\ud83d\\ude00", "completion": "a", "gold": ' + "9" * 300 + "}\n")
    (record,) = load(tmp_path / "d.jsonl")
    assert (record.prompt_text, record.metadata["gold"]) == ("\N{GRINNING FACE}", 10**300 - 1)


def test_numbers_that_json_does_not_have_are_missing_in_meta(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "q", "gold": [NaN, Infinity, 1.5]}\n')
    assert load(tmp_path / "d.jsonl")[0].meta == '{"gold": [null, null, 1.5]}'


def test_json_that_cannot_be_written_is_refused() -> None:
    value: Any = 1
    for _ in range(10_000):
        value = [value]
    with pytest.raises(DataError, match="nested too deeply"):
        dump_json(value)
    with pytest.raises(DataError, match=r"a: .*half of a surrogate pair"):
        dump_json({"a": "\udc00"})
    assert parse_json(dump_json({1: b"x", "b": float("nan")})) == {"1": "b'x'", "b": None}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (
            pyarrow.array([0, 2**40], pyarrow.timestamp("s")),
            r"gold: a value of type timestamp\[\w+\] that Python cannot hold",
        ),
        (pyarrow.array([0, 2**30], pyarrow.int32()).cast(pyarrow.date32()), r"gold: a value of type date32\[day\]"),
        (
            pyarrow.Array.from_buffers(
                pyarrow.string(),
                2,
                [None, pyarrow.py_buffer(b"\0\0\0\0\1\0\0\0\3\0\0\0"), pyarrow.py_buffer(b"q\xff\xfe")],
            ),
            "gold: a value of type string that Python cannot hold: 'utf-8'",
        ),
    ],
)
def test_a_value_that_python_cannot_hold_makes_its_row_bad(values: Any, reason: str, tmp_path: Path) -> None:
    table = pyarrow.table({"prompt": ["q", "r"], "completion": ["a", "b"], "gold": values})
    parquet.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(DataError, match=f"d.parquet:row 2: {reason}"):
        load(tmp_path / "d.parquet")
    assert [record.prompt_text for record in load(tmp_path / "d.parquet", on_error="quarantine")] == ["q"]


# -- bounds -----------------------------------------------------------------------------------------------------------


def traced(path: Path, **settings: Any) -> int:
    """Opens data that are refused or set aside; returns the most bytes that Python held meanwhile."""
    tracemalloc.start()
    try:
        load(path, **settings)
        return tracemalloc.get_traced_memory()[1]
    except DataError:
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["d.jsonl", "d.jsonl.gz", "d.csv", "d.json"])
def test_an_endless_line_is_not_read(name: str, tmp_path: Path) -> None:
    content = b'{"prompt": "' + b"x" * 30_000_000 + b'"}\n' + GOOD.encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=r"max_row_bytes, 1,000,000; .*raise the key"):
        load(tmp_path / name, max_row_bytes=1_000_000)
    assert traced(tmp_path / name, max_row_bytes=1_000_000) < 8_000_000
    if "jsonl" in name:
        assert load(tmp_path / name, max_row_bytes=1_000_000, on_error="quarantine")[0].prompt_text == "q"
        assert len(load(tmp_path / name, max_row_bytes=40_000_000)) == 2


def test_a_file_that_becomes_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress((b" " * 9999 + b"\n") * 7_000))
    with pytest.raises(DataError, match=r"becomes more than 200 times its size; .* data.train.max_expansion"):
        load(tmp_path / "d.jsonl.gz")
    with pytest.raises(DataError, match="empty"):
        load(tmp_path / "d.jsonl.gz", max_expansion=2000)


def test_a_ranking_with_too_many_pairs_is_a_bad_row(tmp_path: Path) -> None:
    names = [f"r{index}" for index in range(2000)]
    record = Record.from_text("q", ["a"] * len(names), id="x").to_dict()
    record["labels"] = [{"kind": "rank", "order": [[name] for name in names]}]
    (tmp_path / "d.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match="labels: 1,999,000 pairs, more than max_pairs, 10,000"):
        load(tmp_path / "d.jsonl")
    assert traced(tmp_path / "d.jsonl") < 20_000_000
    assert load(tmp_path / "d.jsonl", max_pairs=2_000_000)[0].count_pairs() == 1_999_000


@pytest.mark.parametrize(
    "order",
    [[["r0"], ["r1"]], [["r0", "r1"], ["r2"]], [["r2"], ["r0", "r1"]], [["r0"], ["r1"], ["r2"]], [["r0", "r1"]]],
)
def test_pairs_are_counted_as_they_are_made(order: list[list[str]]) -> None:
    data = {**Record.from_text("q", ["a", "b", "c"], id="x").to_dict(), "labels": [{"kind": "rank", "order": order}]}
    record = Record.from_dict(data)
    assert record.count_pairs() == len(record.pair_indices())


# -- what transforms leave out ----------------------------------------------------------------------------------------


class KeepEven(Transform):
    """Keeps every second record; says why, or does not."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        for index, record in enumerate(records):
            if index % 2 == 0:
                yield record
            elif self.reason:
                self.leave_out(self.reason)


class Split(Transform):
    """Drops the first record and makes two of every other one."""

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in list(records)[1:]:
            yield record
            yield record.model_copy(update={"id": f"{record.id}-2"})


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (KeepEven("odd"), "data.train.transforms[0] (KeepEven): left out 2 of 5 records: odd (2)"),
        (KeepEven(), "data.train.transforms[0] (KeepEven): left out 2 of 5 records; it gives no reason"),
        (Split(), "data.train.transforms[0] (Split): left out 1 of 5 records; it gives no reason"),
    ],
)
def test_records_that_a_transform_leaves_out_are_counted_and_said(
    transform: Transform, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "d.jsonl").write_text("".join(f'{{"prompt": "q{index}"}}\n' for index in range(5)))
    open_source(DataConfig(path=str(tmp_path / "d.jsonl")), [transform])
    assert said in caplog.text


def test_nothing_is_said_of_a_transform_that_keeps_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "q"}\n')
    open_source(DataConfig(path=str(tmp_path / "d.jsonl")), [KeepEven()])
    assert caplog.text == ""
