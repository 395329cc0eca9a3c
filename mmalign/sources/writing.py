"""Writes records, as they are or in another layout, into files of any format; a file is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmalign.contract.formats import FileFormat
from mmalign.data.records import Record
from mmalign.errors import DataError
from mmalign.sources.files import describe_suffixes
from mmalign.sources.format_choice import Formats, format_code

_RECORDS = {"name": "mmalign"}


def write_records(records: Iterable[Record], path: Path) -> int:
    """Writes records in the format of files that the suffix names; returns how many."""
    formats = Formats()
    if _find_format(path, formats).flat:
        raise DataError(f"{path}: columns of text do not hold records, which are nested; write .jsonl or .parquet")
    _, layout = formats.build(_RECORDS, "--to")
    rows = (row for record in records for row in layout.write(record))
    return write_rows(rows, path, formats, schema=layout.schema)


def write_rows(
    rows: Iterable[Mapping[str, Any]], path: Path, formats: Formats | None = None, schema: Any = None
) -> int:
    """Writes rows of plain data in the format that the suffix, or `formats`, names; returns how many.

    Args:
        schema: returns the Arrow schema of the rows, or None; asked only for tables.

    Raises:
        DataError: an unknown suffix, no space or no permission, or rows that the format cannot hold.
    """
    formats = formats or Formats()
    form = _find_format(path, formats)
    with replacing(path) as temporary, format_code(f"format of {path}", form):
        count = form.write(rows, temporary, schema() if form.tabular and schema else None)
        if not count:
            raise DataError(f"{path}: not written; the records have no row of the wanted form")
    return count


def _find_format(path: Path, formats: Formats) -> FileFormat:
    form = formats.for_file(path)
    if form is None:
        raise DataError(f"{path}: expected an output named {describe_suffixes(formats)}")
    return form


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path that becomes `path` if all goes well, and is removed if not."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)
