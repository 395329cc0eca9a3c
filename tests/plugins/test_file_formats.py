"""Files of every format: small ones made here are read into equal records, and converted there and back."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from image_files import png
from pyarrow import parquet
from typer.testing import CliRunner

from mmalign.cli.data import app
from mmalign.config.data import DataConfig
from mmalign.data.records import Record
from mmalign.errors import ConfigError, DataError
from mmalign.sources.source import Source, open_source
from mmalign.sources.writing import write_records

ROWS: list[dict[str, Any]] = [
    {
        "id": f"p{index}",
        "prompt": f'question {index}, "quoted"\nand é',
        "chosen": "yes",
        "rejected": "no",
        "gold": f"g{index}",
    }
    for index in range(3)
]
RECORD = Record.from_text("q", ["a", "b"], id="x", system="s")


def load(path: Path | str, **settings: Any) -> Source:
    return open_source(DataConfig(path=str(path), **settings))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def zstd(content: bytes) -> bytes:
    target = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(target, "zstd") as stream:
        stream.write(content)
    return bytes(target.getvalue())


def lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def delimited(delimiter: str) -> bytes:
    cells = [list(ROWS[0]), *(list(row.values()) for row in ROWS)]
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in cells]
    return ("\ufeff" + "\r\n".join(quoted) + "\r\n").encode()


def arrow(stream: bool) -> bytes:
    table = pyarrow.Table.from_pylist(ROWS)
    target = pyarrow.BufferOutputStream()
    opened = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with opened(target, table.schema) as writer:
        writer.write_table(table)
    return bytes(target.getvalue())


def table() -> bytes:
    target = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), target)
    return target.getvalue()


def tar(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members.items():
            described = tarfile.TarInfo(name)
            described.size = len(content)
            archive.addfile(described, io.BytesIO(content))
    return target.getvalue()


FILES = {
    "r.jsonl": lines(),
    "r.ndjson": b"\xef\xbb\xbf" + lines(),
    "r.jsonl.gz": gzip.compress(lines()),
    "r.jsonl.zst": zstd(lines()),
    "r.json": json.dumps(ROWS, indent=1).encode(),
    "objects.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "r.json.gz": gzip.compress(json.dumps(ROWS).encode()),
    "r.csv": delimited(","),
    "r.csv.zst": zstd(delimited(",")),
    "r.tsv": delimited("\t"),
    "r.parquet": table(),
    "r.arrow": arrow(False),
    "stream.arrow": arrow(True),
    "r.feather": arrow(False),
    "r.tar": tar({f"{index:03}.json": json.dumps(row).encode() for index, row in enumerate(ROWS)}),
    "r.tar.gz": gzip.compress(tar({f"a/{index}.json": json.dumps(row).encode() for index, row in enumerate(ROWS)})),
}


@pytest.fixture
def expected(tmp_path: Path) -> list[Record]:
    (tmp_path / "expected.jsonl").write_bytes(lines())
    return list(load(tmp_path / "expected.jsonl"))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_every_file_is_read_into_the_same_records(
    name: str, streaming: bool, tmp_path: Path, expected: list[Record]
) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    source = load(tmp_path / name, streaming=streaming)
    assert list(source) == expected == list(source)


def test_a_saved_data_set_is_read_into_the_same_records(tmp_path: Path, expected: list[Record]) -> None:
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    assert list(load(tmp_path / "saved")) == expected


@pytest.mark.parametrize("name", ["r.jsonl.zst", "r.json", "r.ndjson", "r.parquet", "r.arrow", "r.tar"])
def test_records_survive_a_file(name: str, tmp_path: Path) -> None:
    labels = [{"kind": "pair", "order": [["r0"], ["r1"]], "strength": 0.5}]
    records = [
        Record.from_dict({**RECORD.to_dict(), "labels": labels, "meta": '{"a": [1, null]}'}),
        RECORD.model_copy(update={"id": "y"}),
    ]
    assert write_records(records, tmp_path / name) == 2
    assert list(load(tmp_path / name)) == records


@pytest.mark.parametrize(
    "name", ["there.csv", "there.tsv.gz", "there.json", "there.parquet", "there.arrow", "there.tar", "there"]
)
@pytest.mark.parametrize("layout", ["trl", "llama_factory", "ms_swift", "openai"])
def test_there_and_back_loses_nothing(layout: str, name: str, tmp_path: Path, expected: list[Record]) -> None:
    (tmp_path / "r.jsonl").write_bytes(lines())
    form = ["--as", "datasets"] if name == "there" else []
    there = run("convert", tmp_path / "r.jsonl", tmp_path / name, "--to", layout, *form)
    assert (there.exit_code, there.stderr.count("not held")) == (0, 0), there.exception
    assert run("convert", tmp_path / name, tmp_path / "back.jsonl").exit_code == 0
    assert list(load(tmp_path / "back.jsonl")) == expected


def test_media_go_into_a_tar_and_come_back(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png())
    rows = [
        {"id": "x", "prompt": "q", "completion": "a", "images": ["a.png"]},
        {"id": "y", "prompt": "q", "completion": "a"},
    ]
    (tmp_path / "in" / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for layout in ("mmalign", "trl"):
        assert run("convert", tmp_path / "in" / "r.jsonl", tmp_path / "r.tar", "--to", layout).exit_code == 0
        with tarfile.open(tmp_path / "r.tar") as archive:
            assert archive.getnames() == ["000000.json", "000000.m1.png", "000001.json"]
            assert archive.extractfile("000000.m1.png").read() == png()  # type: ignore[union-attr]
        seeing, plain = load(tmp_path / "r.tar")
        assert seeing.media[0].uri == f"data:image/png;base64,{base64.b64encode(png()).decode()}"
        assert (plain.id, plain.media) == ("y", ())


def test_a_tar_of_captions(tmp_path: Path) -> None:
    (tmp_path / "r.tar").write_bytes(
        tar({"a/0.jpg": png(), "a/0.txt": b"a cat", "a/1.jpg": png(), "a/1.txt": b"a dog"})
    )
    assert [record.prompt_text for record in load(tmp_path / "r.tar")] == ["a cat", "a dog"]
    assert [record.id for record in load(tmp_path / "r.tar")] == ["a/0", "a/1"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"metadata.csv": b"file_name,caption\nb/1.png,a dog\na.png,a cat\n"},
        {"metadata.jsonl": b'{"file_name": "b/1.png", "caption": "a dog"}\n{"file_name": "a.png", "text": "a cat"}\n'},
        {"a.txt": b"a cat", "b/1.txt": b"a dog"},
    ],
)
def test_a_folder_of_images(metadata: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in {"a.png": png(), "b/1.png": png(), **metadata}.items():
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(content)
    found = {record.prompt_text: record for record in load(tmp_path / "f")}
    assert {text: Path(one.media[0].uri).relative_to(tmp_path / "f").as_posix() for text, one in found.items()} == {
        "a cat": "a.png",
        "a dog": "b/1.png",
    }


def test_cells_hold_messages_as_json_and_missing_values(tmp_path: Path) -> None:
    cell = json.dumps([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]).replace('"', '""')
    (tmp_path / "r.csv").write_text(f'prompt,completion,margin\n"{cell}",[1] is a list,\n')
    (record,) = load(tmp_path / "r.csv")
    assert ([one.role for one in record.prompt], record.responses[0].text, record.meta) == (
        ["system", "user"],
        "[1] is a list",
        None,
    )


def test_a_format_is_named_for_a_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("prompt|completion\nq|a\n")
    assert load(tmp_path / "r.txt", format={"name": "csv", "delimiter": "|"})[0].responses[0].text == "a"
    both = load(tmp_path / "r.txt", format=[{"name": "csv", "delimiter": "|"}, "trl"])
    assert both[0].prompt_text == "q"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.json", b'[{"prompt": "q"}, {"prompt": ]', "r.json:line 1: not valid JSON"),
        ("r.json", b'[{"prompt": "q"}', "r.json:line 1: not valid JSON: the array has no end"),
        ("r.json", b'[{"prompt": "q"}] x', "expected nothing behind the array"),
        ("r.json", b'"text"', "not valid JSON: expected an object"),
        ("r.json", b'[1, {"prompt": "q"}]', "r.json:element 1: expected a JSON object, got int"),
        ("r.csv", b"prompt,prompt\nq,q\n", "r.csv:1: .* column 'prompt' stands there twice"),
        ("r.csv", b"prompt,\nq,q\n", "r.csv:1: .* a column has no name"),
        ("r.csv", b"prompt,completion\nq,a,b\n", "r.csv:2: 3 cells, but 2 columns"),
        ("r.csv", b'prompt,completion\nq,"a"b\n', "r.csv:2: not valid CSV"),
        ("r.csv", b"prompt\n\xff\n", "r.csv:2: prompt: byte 0xff at column 1 is not UTF-8"),
        ("r.csv", b"prompt,completion\nq,\"[{'role': 'user'}]\"\n", "completion: written by Python, not as JSON"),
        ("r.arrow", b"what is this", "r.arrow: damaged, cut-off or not an Arrow file"),
        ("r.tar", b"what is this", "r.tar: damaged, cut-off or not a tar file"),
        ("r.tar", tar({"0.json": b"{", "1.json": b'{"prompt": "q"}'}), "r.tar:row 1: 0: not valid JSON"),
        ("r.jsonl.zst", b"what is this", "r.jsonl.zst:1: damaged or cut-off zstd file"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("cvs", "data.train.format: unknown 'cvs'; did you mean 'csv'"),
        (["csv", "tsv"], r"data.train.format\[1\]: two formats of files"),
        (["trl", "alpaca"], r"data.train.format\[1\]: two layouts of rows"),
        ({"name": "csv", "delimeter": ";"}, "data.train.format.delimeter: unknown key .* did you mean 'delimiter'"),
    ],
)
def test_a_wrong_format_is_named(format: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(lines())
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "r.jsonl", format=format)


@pytest.mark.parametrize(
    ("rows", "output", "message"),
    [
        ([{"prompt": "q", "completion": ""}], "o.csv", None),
        ([{"prompt": "q", "completion": "a", "gold": '{"a": 1}'}], "o.csv", "gold: a text that would be read as JSON"),
        (
            [{"prompt": "q", "completion": "a", "gold": ""}],
            "o.csv",
            "gold: an empty text, which would be read as missing",
        ),
    ],
)
def test_columns_of_text_refuse_what_would_not_come_back(
    rows: list[dict[str, Any]], output: str, message: str | None, tmp_path: Path
) -> None:
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run("convert", tmp_path / "r.jsonl", tmp_path / output, "--to", "trl")
    assert (result.exception is None) == (message is None)
    assert message is None or message in str(result.exception)
    assert (tmp_path / output).exists() == (message is None)


def test_records_do_not_go_into_columns_of_text(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(lines())
    assert "columns of text do not hold records" in str(
        run("convert", tmp_path / "r.jsonl", tmp_path / "o.csv").exception
    )
