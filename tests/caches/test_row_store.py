"""Rows on the disk: the first stands, damaged ones are dropped, and processes share the file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mmalign.references.row_store import RowStore


@pytest.fixture
def store(tmp_path: Path) -> RowStore:
    return RowStore(tmp_path / "rows.sqlite")


def change(store: RowStore, statement: str) -> None:
    with sqlite3.connect(store.file) as connection:
        connection.execute(statement)
    connection.close()


def test_rows_come_back_as_they_were(store: RowStore) -> None:
    rows = {bytes([i]): bytes(range(i)) for i in range(5)}
    assert store.add(rows) == rows
    assert RowStore(store.file).read([*rows, b"other"]) == rows
    assert store.count() == 5 and store.damaged == 0


def test_more_keys_than_one_query_takes(store: RowStore) -> None:
    rows = {str(i).encode(): str(-i).encode() for i in range(1500)}
    store.add(rows)
    assert store.read(rows) == rows


def test_the_row_that_was_stored_first_stands(store: RowStore) -> None:
    store.add({b"a": b"first"})
    assert store.add({b"a": b"second", b"b": b"new"}) == {b"a": b"first", b"b": b"new"}
    assert store.read([b"a", b"b"]) == {b"a": b"first", b"b": b"new"}


@pytest.mark.parametrize("column", ["value", "digest", "key"])
def test_a_damaged_row_is_dropped_and_can_be_stored_again(store: RowStore, column: str) -> None:
    store.add({b"a": b"one", b"b": b"two"})
    change(store, f"UPDATE rows SET {column} = x'00' WHERE key = x'61'")
    key = b"\0" if column == "key" else b"a"
    assert store.read([key, b"b"]) == {b"b": b"two"}
    assert (store.damaged, store.count()) == (1, 1)
    assert store.add({b"a": b"again"}) == {b"a": b"again"}


def test_a_damaged_row_does_not_stand_against_a_new_one(store: RowStore) -> None:
    store.add({b"a": b"one"})
    change(store, "UPDATE rows SET value = x'00'")
    assert store.add({b"a": b"again"}) == {b"a": b"again"}
    assert store.read([b"a"]) == {b"a": b"again"} and store.damaged == 1


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look at" * 100, None])
def test_a_damaged_file_starts_anew(store: RowStore, content: bytes | None) -> None:
    store.add({str(i).encode(): bytes(1000) for i in range(100)})
    whole = store.file.read_bytes()
    # A truncated file keeps its header, so that only reading it shows what it has lost.
    store.file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    identity_before = int.from_bytes(whole[60:64], "big")
    assert len(store.read([str(i).encode() for i in range(100)])) < 100
    assert store.damaged >= 1
    assert store.identity() != identity_before
    assert store.add({b"new": b"row"}) == store.read([b"new"])


def test_another_file_has_another_identity(store: RowStore) -> None:
    before = store.identity()
    assert RowStore(store.file).identity() == before
    store.file.unlink()
    assert store.identity() != before


def test_a_file_that_cannot_be_opened_is_an_error_and_stays(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        RowStore(tmp_path / "missing" / "rows.sqlite").read([b"a"])


WRITER = """
import sys
from pathlib import Path
from mmalign.references.row_store import RowStore
store = RowStore(Path(sys.argv[1]))
keys = [b"%d" % number for number in range(60)]
kept = {}
for start in range(0, 60, 3):
    kept |= store.add({key: sys.argv[2].encode() for key in keys[start : start + 3]})
assert store.read(keys) == kept, "what this process was told is not what is there"
"""


def test_processes_that_write_at_once_agree(store: RowStore) -> None:
    command = [sys.executable, "-c", WRITER, str(store.file)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abcd"]
    failures = [writer.communicate(timeout=120)[1] for writer in writers]
    assert not any(failures), failures
    assert store.count() == 60 and store.damaged == 0


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TABLE rows (key BLOB, value BLOB); PRAGMA user_version = 7",
        "CREATE TABLE rows (key TEXT, value BLOB, digest BLOB, made REAL)",
        "CREATE TABLE other (key BLOB); PRAGMA user_version = 7",
    ],
)
def test_a_table_of_another_version_starts_anew_with_a_word(
    store: RowStore, statements: str, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(store.file) as connection:
        connection.executescript(statements)
    connection.close()
    store.add({b"a": b"1"})
    assert store.read([b"a"]) == {b"a": b"1"} and store.damaged == 1
    assert "is of another version and starts anew: expected the columns key, value, digest" in caplog.text
