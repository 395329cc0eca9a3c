"""CSV and TSV: columns of text. What is nested stands in a cell as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from mmalign import DataError, FileFormat, Parameters, RawRow, ReadOptions, dump_json, parse_json
from mmalign_formats.compression import damaged_archive, open_bounded, open_text
from mmalign_formats.lines import require_utf8


class CsvConfig(Parameters):
    """How cells are told apart."""

    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Between cells."""
    quote: str = Field(default='"', min_length=1, max_length=1)
    """Around cells that hold delimiters, quotes or line breaks."""


class TsvConfig(CsvConfig):
    """How cells are told apart."""

    delimiter: str = Field(default="\t", min_length=1, max_length=1)
    """Between cells."""


@dataclass
class Delimited(FileFormat):
    """Reads and writes text with one row a line and a first line of names. An empty cell is a missing value.

    A cell that is a JSON object, or a list of objects, is read as such; other cells are texts.
    """

    delimiter: str
    quote: str
    flat: ClassVar[bool] = True

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields the rows; they are named by the line in which they end."""
        csv.field_size_limit(options.row_bytes)
        with open_bounded(path, options) as file:
            # A quoted cell may have line breaks: the reader must see them as they are.
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
            reader = csv.reader(
                _iter_bounded(text, path, options), delimiter=self.delimiter, quotechar=self.quote, strict=True
            )
            names: list[str] | None = None
            while True:
                with damaged_archive(path, lambda: reader.line_num + 1):
                    cells, fault = _next_row(reader)
                if cells is None and not fault:
                    return
                if names is None:
                    names = _check_names(cells, fault, path)
                elif cells or fault:
                    yield _read_row(str(path), reader.line_num, names, cells, fault)

    def write(self, rows: Iterable[Mapping[str, Any]], path: Path, schema: Any = None) -> int:
        """Writes rows; the columns are those of all rows, in the order in which they come up."""
        listed = list(rows)
        names = list(dict.fromkeys(name for row in listed for name in row))
        with open_text(path) as file:
            writer = csv.writer(file, delimiter=self.delimiter, quotechar=self.quote, lineterminator="\n")
            writer.writerow(names)
            for row in listed:
                writer.writerow([_write_cell(name, row.get(name)) for name in names])
        return len(listed)


def _iter_bounded(text: io.TextIOWrapper, path: Path, options: ReadOptions) -> Iterator[str]:
    number = 0
    while line := text.readline(options.row_bytes + 1):
        number += 1
        if len(line) > options.row_bytes:
            most = f"{options.where}.max_row_bytes, {options.row_bytes:,}"
            raise DataError(f"{path}:{number}: a line of more bytes than {most}; if it is meant, raise the key")
        yield line


def _next_row(reader: Any) -> tuple[list[str] | None, str]:
    try:
        return next(reader, None), ""
    except csv.Error as error:
        return None, f"not valid CSV: {error}; expected the quote character doubled inside quotes"


def _check_names(cells: list[str] | None, fault: str, path: Path) -> list[str]:
    names = [name.strip() for name in cells or []]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if fault or twice is not None or not all(names):
        problem = fault or (f"column {twice!r} stands there twice" if twice else "a column has no name")
        raise DataError(f"{path}:1: expected the names of the columns in the first line; {problem}")
    for name in names:
        try:
            require_utf8(name)
        except DataError as error:
            raise DataError(f"{path}:1: {error}") from None
    return names


def _read_row(file: str, number: int, names: list[str], cells: list[str] | None, fault: str) -> RawRow:
    if cells is not None and len(cells) != len(names):
        fault = f"{len(cells)} cells, but {len(names)} columns; quote cells that hold the delimiter or line breaks"
    if fault or cells is None:
        return RawRow(file, number, fault=fault, text=dump_or_repr(cells))
    value: dict[str, Any] = {}
    try:
        for name, cell in zip(names, cells, strict=True):
            value[name] = _read_cell(name, cell)
    except DataError as error:
        return RawRow(file, number, fault=str(error), text=dump_or_repr(cells))
    return RawRow(file, number, value)


def dump_or_repr(cells: list[str] | None) -> str:
    """Returns cells as text for messages."""
    return "" if cells is None else repr(cells)


def _read_cell(name: str, cell: str) -> Any:
    try:
        require_utf8(cell)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if not cell:
        return None
    start = cell.lstrip()[:3].replace(" ", "").replace("\n", "")
    if start.startswith(("{'", "[{'")):
        raise DataError(f"{name}: written by Python, not as JSON; write lists and objects with json.dumps")
    if start.startswith(('{"', "[{")):
        try:
            return parse_json(cell)
        except DataError:
            return cell  # text that only begins like JSON
    return cell


def _write_cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return dump_json(value)
    if not value or not isinstance(_reread(name, value), str):
        what = "an empty text, which would be read as missing" if not value else "a text that would be read as JSON"
        raise DataError(f"column {name}: {what}; write .jsonl or .parquet")
    return value


def _reread(name: str, value: str) -> Any:
    try:
        return _read_cell(name, value)
    except DataError:
        return None
