"""Writes records or TRL rows as JSONL or Parquet; a file is there whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from mmalign.data.files import SUFFIXES
from mmalign.data.records import Record
from mmalign.errors import DataError

T = TypeVar("T")
_BATCH = 1000


def write_records(records: Iterable[Record], path: Path) -> int:
    """Writes records in the format that the suffix names; returns how many."""
    if path.suffix != ".parquet":
        return write_rows((record.to_dict() for record in records), path)
    from pyarrow import parquet

    from mmalign.data.arrow import record_schema, records_to_table

    count = 0
    with replacing(path) as temporary, parquet.ParquetWriter(temporary, record_schema()) as writer:
        for batch in _batches(records):
            writer.write_table(records_to_table(batch))
            count += len(batch)
        _require_any(count, path)
    return count


def write_rows(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Writes rows of plain data in the format that the suffix names; returns how many.

    Raises:
        DataError: an unknown suffix, no space or no permission, or rows of different shapes in a Parquet file.
    """
    if path.suffix == ".parquet":
        return _write_table(list(rows), path)
    count = 0
    with replacing(path) as temporary:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(temporary, "wt", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
        _require_any(count, path)
    return count


def _write_table(rows: list[Mapping[str, Any]], path: Path) -> int:
    import pyarrow
    from pyarrow import parquet

    _require_any(len(rows), path)
    # Arrow takes the columns of the first row for those of all.
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: the rows have no common columns ({error}); write .jsonl instead") from None
    with replacing(path) as temporary:
        parquet.write_table(table, temporary)
    return len(rows)


def _require_any(count: int, path: Path) -> None:
    if not count:
        raise DataError(f"{path}: not written; the records have no row of the wanted form")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path that becomes `path` if all goes well, and is removed if not."""
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: expected an output named {', '.join(SUFFIXES)}")
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch
