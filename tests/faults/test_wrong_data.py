"""Wrong data files: each is one message that names the place and the mend, exit code 2, no traceback."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.cli.main import main
from mmalign.sources.writing import write_rows

GOOD = {"id": "a", "schema": "mmalign/1", "prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]}
RESPONSES = [{"rid": "r0", "messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]}]


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def changed(**fields: object) -> bytes:
    return lines({**GOOD, **fields})


def cut_gzip() -> bytes:
    whole = gzip.compress(b"".join(lines({**GOOD, "id": f"{index}-{hash(index * 7919)}"}) for index in range(500)))
    return whole[: len(whole) // 2]


def cut_parquet(folder: Path) -> None:
    write_rows([{"prompt": "q"}] * 100, folder / "whole.parquet")
    (folder / "bad.parquet").write_bytes((folder / "whole.parquet").read_bytes()[:-20])


def bad_parquet_row(folder: Path) -> None:
    write_rows([{"prompt": "q", "chosen": "a", "rejected": reply} for reply in ("b", None)], folder / "bad.parquet")


def put(content: bytes, name: str = "bad.jsonl") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


# How the file goes wrong, the argument, and what the one message has to say.
CASES: dict[str, tuple[Callable[[Path], None], str, tuple[str, ...]]] = {
    "missing file": (put(lines(GOOD), "train.jsonl"), "trian.jsonl", ("no such file", "did you mean", "train.jsonl")),
    "missing folder": (put(b""), "nowhere/x.jsonl", ("no such file", "no folder")),
    "a folder": (lambda folder: (folder / "bad").mkdir(), "bad", ("is a folder", "*.jsonl")),
    "nothing matches": (put(lines(GOOD), "a.txt"), "*.jsonl", ("no file matches",)),
    "unknown suffix": (put(lines(GOOD), "bad.xlsx"), "bad.xlsx", ("expected a file named", ".jsonl", "format: csv")),
    "empty file": (put(b"\n\n"), "bad.jsonl", ("bad.jsonl: empty", "expected at least one record")),
    "cut-off JSON": (put(lines(GOOD) + b'{"id": "b", "pro'), "bad.jsonl", ("bad.jsonl:2:", "not valid JSON at column")),
    "a list": (put(lines([GOOD])), "bad.jsonl", ("bad.jsonl:1:", "expected a JSON object, got list")),
    "wrong encoding": (put('{"prompt": "é"}'.encode("latin-1")), "bad.jsonl", ("bad.jsonl:1:", "0xe9", "UTF-8")),
    "UTF-16": (put('{"prompt": "q"}'.encode("utf-16")), "bad.jsonl", ("bad.jsonl:1:", "save the file as UTF-8")),
    "cut-off gzip": (put(cut_gzip(), "bad.jsonl.gz"), "bad.jsonl.gz", ("bad.jsonl.gz:", "cut-off gzip", "again")),
    "no gzip": (put(lines(GOOD), "bad.jsonl.gz"), "bad.jsonl.gz", ("bad.jsonl.gz:1", "gzip")),
    "cut-off Parquet": (cut_parquet, "bad.parquet", ("bad.parquet:", "cut-off or not a Parquet file", "again")),
    "bad Parquet row": (bad_parquet_row, "bad.parquet", ("bad.parquet:row 2:", "rejected: missing")),
    "unknown key": (put(changed(respones=RESPONSES)), "bad.jsonl", ("bad.jsonl:1: respones:", "'responses'")),
    "content is text": (
        put(changed(prompt=[{"role": "user", "content": "q"}])),
        "bad.jsonl",
        ("bad.jsonl:1: prompt[0].content:", "expected a list of parts", 'got "q"'),
    ),
    "unknown role": (put(changed(prompt=[{"role": "human"}])), "bad.jsonl", ("prompt[0].role:", "'user'", '"human"')),
    "unknown response": (
        put(changed(responses=RESPONSES, labels=[{"kind": "pair", "order": [["r0"], ["r1"]]}])),
        "bad.jsonl",
        ("bad.jsonl:1: labels[0].order:", "no item 'r1'", "did you mean 'r0'"),
    ),
    "unknown media": (
        put(changed(prompt=[{"role": "user", "content": [{"type": "image", "media": "m1"}]}])),
        "bad.jsonl",
        ("bad.jsonl:1: prompt[0].content[0].media:", "no media 'm1'"),
    ),
    "same id twice": (put(lines(GOOD, GOOD)), "bad.jsonl", ("bad.jsonl:2: id:", "'a' is used already", "bad.jsonl:1")),
    "no id": (put(changed(id=None)), "bad.jsonl", ("bad.jsonl:1: id: missing", "no other record has")),
    "number as text": (
        put(changed(responses=RESPONSES, scores=[{"item": "r0", "name": "s", "level": "response", "value": "7"}])),
        "bad.jsonl",
        ("scores[0].value:", "expected a number", 'got "7"'),
    ),
    "unknown format": (
        put(lines({"question": "q"})),
        "bad.jsonl",
        ("bad.jsonl:1:", "unknown format", "nearest is rlaif_v", "'chosen'"),
    ),
    "misspelt column": (put(lines({"prompt": "q", "chosn": "a"})), "bad.jsonl", ("bad.jsonl:1: chosn:", "'chosen'")),
    "half a pair": (put(lines({"prompt": "q", "chosen": "a"})), "bad.jsonl", ("bad.jsonl:1: rejected:", "missing")),
    "label is text": (
        put(lines({"prompt": "q", "completion": "a", "label": "good"})),
        "bad.jsonl",
        ("bad.jsonl:1: label:", "expected true or false", "'good'"),
    ),
    "half a surrogate pair": (put(b'{"prompt": "\\ud800"}\n'), "bad.jsonl", ("bad.jsonl:1: ", "surrogate")),
    "a number of 5000 digits": (put(b'{"meta": ' + b"1" * 5000 + b"}\n"), "bad.jsonl", ("bad.jsonl:1: ", "digits")),
    "nested deeply": (put(b'{"meta": ' + b"[" * 9999 + b"]" * 9999 + b"}"), "bad.jsonl", ("bad.jsonl:1: ", "nested")),
    "too many images": (
        put(lines({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "images": ["a.png", "b.png"]})),
        "bad.jsonl",
        ("bad.jsonl:1: images:", "2 images, but 1 placeholders"),
    ),
}


def run_command(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs `mmalign ARGUMENTS` in this process; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["mmalign", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code


@pytest.mark.parametrize("command", ["validate", "convert"])
@pytest.mark.parametrize("fault", CASES)
def test_wrong_data_is_one_message(
    fault: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, path, expected = CASES[fault]
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    output = ["out.jsonl"] if command == "convert" else []
    assert run_command(["data", command, path, *output], monkeypatch) == 2
    message = capsys.readouterr().err
    assert all(words in message for words in expected), message
    assert "Traceback" not in message
    assert len(message.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_all_rows_bad_is_an_error_even_in_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(b"1\n2\n")(tmp_path)
    assert run_command(["data", "validate", "bad.jsonl", "--on-error", "quarantine"], monkeypatch) == 2
    message = capsys.readouterr().err
    assert "bad.jsonl: all 2 rows are bad, e.g. bad.jsonl:1: expected a JSON object" in message
    assert "bad.quarantine.jsonl" in message
