"""Data sources: every kind of file gives the same records; bad rows stop the run or go to a side file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from mmalign.config.data import DataConfig
from mmalign.contract.components import Transform
from mmalign.data.records import Record
from mmalign.errors import ConfigError, DataError
from mmalign.sources.arrow import record_features, record_schema, records_to_table
from mmalign.sources.source import Source, open_source
from mmalign.sources.writing import write_records, write_rows

EXAMPLES = Path(__file__).parents[1] / "data" / "example_records.jsonl"
ROWS = [{"prompt": f"q{index}", "completion": f"a{index}"} for index in range(5)]


@pytest.fixture
def records() -> list[Record]:
    return [Record.from_json(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path: Path | str, **settings: Any) -> Source:
    return open_source(DataConfig(path=str(path), **settings))


def without_media_paths(source: Iterable[Record]) -> list[Record]:
    """Undoes that relative media paths are found beside the data."""
    changed = []
    for record in source:
        media = [one.model_copy(update={"uri": "/".join(Path(one.uri).parts[-2:])}) for one in record.media]
        changed.append(record.model_copy(update={"media": tuple(media)}))
    return changed


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_every_file_gives_the_same_records(name: str, streaming: bool, records: list[Record], tmp_path: Path) -> None:
    assert write_records(records, tmp_path / name) == len(records)
    assert without_media_paths(load(tmp_path / name, streaming=streaming)) == records


@pytest.mark.parametrize("streaming", [False, True])
def test_saved_dataset_gives_the_same_records(streaming: bool, records: list[Record], tmp_path: Path) -> None:
    rows = [record.model_dump(mode="json", by_alias=True) for record in records]
    datasets.Dataset.from_list(rows, features=record_features()).save_to_disk(str(tmp_path / "saved"))
    assert without_media_paths(load(tmp_path / "saved", streaming=streaming)) == records


def test_saved_splits(tmp_path: Path) -> None:
    datasets.DatasetDict({"test": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "saved"))
    assert len(load(tmp_path / "saved", split="test")) == 5
    with pytest.raises(DataError, match=r"data.train.split: .* no split 'tests'; did you mean 'test'"):
        load(tmp_path / "saved", split="tests")


def test_embedded_images_stay_undecoded(tmp_path: Path) -> None:
    image = {"bytes": b"\x89PNG\r\n\x1a\nbroken on purpose", "path": None}
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "completion": datasets.Value("string"), "image": datasets.Image()}
    )
    datasets.Dataset.from_list([{**ROWS[0], "image": image}], features=features).save_to_disk(str(tmp_path / "saved"))
    assert load(tmp_path / "saved")[0].media[0].uri.startswith("data:image/png;base64,")


def test_hub_data_set_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"data.train.path: no local file 'owner/name', and .* Couldn't reach"):
        load("owner/name")


@pytest.mark.parametrize("streaming", [False, True])
def test_hub_data_set_is_loaded_by_name_and_split(streaming: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def give(path: str, name: str | None, *, split: str, streaming: bool) -> Any:
        asked.append((path, name, split, streaming))
        rows = datasets.Dataset.from_list(ROWS)
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(datasets, "load_dataset", give)
    source = load("owner/name", name="en", split="test", streaming=streaming)
    assert [record.prompt_text for record in source] == ["q0", "q1", "q2", "q3", "q4"]
    assert asked == [("owner/name", "en", "test", streaming)]


# -- Arrow ------------------------------------------------------------------------------------------------------------


def test_examples_are_one_table_of_fourteen_columns(records: list[Record]) -> None:
    table = records_to_table(records)
    assert table.num_columns == 14
    assert [Record.from_dict(row) for row in table.to_pylist()] == records


def test_dropped_form_loads_with_the_features(records: list[Record]) -> None:
    rows = [{name: record.to_dict().get(name) for name in record_schema().names} for record in records]
    loaded = datasets.Dataset.from_list(rows, features=record_features())
    assert [Record.from_dict(row) for row in loaded.with_format("arrow")[:].to_pylist()] == records


def test_shard_of_empty_lists_keeps_its_types(tmp_path: Path) -> None:
    """Left to guess, Arrow types a list that is empty in every row as a list of nulls."""
    plain = Record.from_text("q", ["a"], id="x")
    guessed = pyarrow.Table.from_pylist([plain.model_dump(mode="json", by_alias=True)])
    assert guessed.schema.field("labels").type == pyarrow.list_(pyarrow.null())
    write_records([plain], tmp_path / "r.parquet")
    assert parquet.read_schema(tmp_path / "r.parquet").equals(record_schema())


def test_content_of_two_types_has_no_table(tmp_path: Path) -> None:
    rows = [{"prompt": "q"}, {"prompt": [{"role": "user", "content": "q"}]}]
    with pytest.raises(DataError, match=r"no common columns .* write .jsonl instead"):
        write_rows(rows, tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


# -- sources ----------------------------------------------------------------------------------------------------------


def test_source_has_length_index_and_name(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", ROWS)
    source = load(path)
    assert (len(source), source[4].prompt_text, source.name, source.quarantined) == (5, "q4", str(path), 0)


def test_streamed_source_has_no_length_and_restarts(tmp_path: Path) -> None:
    source = load(write_lines(tmp_path / "d.jsonl", ROWS), streaming=True, shuffle=False)
    with pytest.raises(TypeError, match="streamed"):
        len(source)
    with pytest.raises(TypeError, match="streamed"):
        source[0]
    assert list(source) == list(source)


def test_streamed_source_is_checked_at_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", [{"promt": "q"}])
    with pytest.raises(DataError, match=r"d.jsonl:1: unknown format"):
        load(path, streaming=True)


def test_streaming_warns_that_it_cannot_shuffle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(write_lines(tmp_path / "d.jsonl", ROWS), streaming=True)
    assert "shuffle has no effect" in caplog.text


def test_glob_reads_files_in_order_and_skips_side_files(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", ROWS[2:])
    write_lines(tmp_path / "a.jsonl", ROWS[:2])
    write_lines(tmp_path / "a.quarantine.jsonl", [{"reason": "bad"}])
    source = load(f"{tmp_path}/*.jsonl")
    assert [record.id for record in source] == [f"row-{index}" for index in range(5)]
    assert source[0].prompt_text == "q0"


def test_limit_stops_reading(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", [*ROWS[:2], {"bad": 1}])
    assert len(load(path, limit=2)) == 2


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", [{"question": "q", "answer": "a"}])
    assert load(path, columns={"question": "prompt", "answer": "completion"})[0].responses[0].text == "a"
    with pytest.raises(DataError, match=r"d.jsonl:1: columns: no column 'questin'; did you mean 'question'"):
        load(path, columns={"questin": "prompt"})
    with pytest.raises(DataError, match="cannot be renamed to 'answer', which is a column already"):
        load(path, columns={"question": "answer"})


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = load(write_lines(tmp_path / "a.jsonl", ROWS)).fingerprint
    assert load(write_lines(tmp_path / "b.jsonl", ROWS)).fingerprint == first
    assert load(write_lines(tmp_path / "b.jsonl", ROWS[:4])).fingerprint != first


class Double(Transform):
    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            yield record
            yield record


class Drop(Transform):
    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        return (record for record in records if record.id == "nobody")


@pytest.mark.parametrize("streaming", [False, True])
def test_transforms_apply_in_order(streaming: bool, tmp_path: Path) -> None:
    config = DataConfig(path=str(write_lines(tmp_path / "d.jsonl", ROWS)), streaming=streaming)
    assert len(list(open_source(config, [Double(), Double()]))) == 20


def test_transforms_that_leave_nothing_are_an_error(tmp_path: Path) -> None:
    config = DataConfig(path=str(write_lines(tmp_path / "d.jsonl", ROWS)))
    with pytest.raises(DataError, match="no record is left after the transforms"):
        open_source(config, [Drop()])


class Backwards(Transform):
    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        return iter(records)

    def stage(self, record: Record) -> int:
        return -int(record.id[-1]) // 2


class Whole(Transform):
    whole = True

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        return iter(list(records))


def test_the_stages_of_transforms_order_the_source(tmp_path: Path) -> None:
    config = DataConfig(path=str(write_lines(tmp_path / "d.jsonl", ROWS)))
    source = open_source(config, [Backwards()])
    assert [record.id for record in source] == ["row-3", "row-4", "row-1", "row-2", "row-0"]
    assert source.stages == (2, 2, 1)
    assert open_source(config, [Whole(), Backwards()]).stages == (2, 2, 1)
    assert open_source(config, [Whole()]).stages == (5,)


@pytest.mark.parametrize("transform", [Whole(), Backwards()], ids=["whole", "staged"])
def test_streams_refuse_what_needs_all_records(transform: Transform, tmp_path: Path) -> None:
    config = DataConfig(path=str(write_lines(tmp_path / "d.jsonl", ROWS)), streaming=True)
    expected = r"data\.train\.transforms\[1\]: looks at all records.*set data\.train\.streaming: false"
    with pytest.raises(ConfigError, match=expected):
        open_source(config, [Double(), transform])


class Refuse(Transform):
    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            raise DataError(f"refuse: record {record.id!r}: no")
        yield from ()


def test_errors_of_transforms_name_the_file_and_those_of_the_file_are_not_changed(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", ROWS)
    with pytest.raises(DataError) as error:
        open_source(DataConfig(path=str(path)), [Double(), Refuse(), Double()])
    assert str(error.value) == f"{path}: refuse: record 'row-0': no"
    path = write_lines(tmp_path / "e.jsonl", [*ROWS, {"promt": "q"}])
    with pytest.raises(DataError) as error:
        open_source(DataConfig(path=str(path)), [Double(), Double()])
    assert str(error.value).startswith(f"{path}:6: unknown format")


def test_transform_needs_a_name() -> None:
    with pytest.raises(ValidationError, match="every transform needs a name"):
        DataConfig(path="x.jsonl", transforms=({"size": 3},))


def test_media_are_found_beside_the_data(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "images": ["img/a.png", "/abs/b.png", "https://host/c.png", "data:image/png;base64,AA=="]}]
    record = load(write_lines(tmp_path / "d.jsonl", rows))[0]
    assert [media.uri for media in record.media] == [str(tmp_path / "img/a.png"), *rows[0]["images"][1:]]


def test_byte_order_mark_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\r\n\r\n" + json.dumps(ROWS[1]).encode())
    assert len(load(path)) == 2
