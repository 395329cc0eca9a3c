"""JSON Lines: one JSON value a line, plain, gzipped or zstd."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from mmalign import DataError, FileFormat, RawRow, ReadOptions, dump_json, parse_json
from mmalign_formats.compression import damaged_archive, open_bounded, open_text


class JsonLines(FileFormat):
    """Reads and writes JSON Lines."""

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields the lines that are not blank."""
        number = 0
        with open_bounded(path, options) as file, damaged_archive(path, lambda: number + 1):
            for number, line in enumerate(iter_lines(file, options.row_bytes), start=1):
                if isinstance(line, int):
                    yield RawRow(str(path), number, fault=_describe_long(line, options))
                elif line.strip():
                    yield _parse(str(path), number, line)

    def write(self, rows: Iterable[Mapping[str, Any]], path: Path, schema: Any = None) -> int:
        """Writes one row a line."""
        count = 0
        with open_text(path) as file:
            for row in rows:
                file.write(dump_json(row) + "\n")
                count += 1
        return count


def iter_lines(file: IO[bytes], most: int) -> Iterator[bytes | int]:
    """Yields the lines of a file; of one that is longer than `most` bytes, its length in their place."""
    while line := file.readline(most + 1):
        if len(line) <= most or line.endswith(b"\n"):
            yield line
            continue
        size = len(line)
        # The rest is read in pieces and let go: what follows may be good.
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)
            size += len(line)
        yield size


def _describe_long(size: int, options: ReadOptions) -> str:
    most = f"{options.where}.max_row_bytes, {options.row_bytes:,}"
    return f"a line of {size:,} bytes, more than {most}; if it is meant, raise the key"


def _parse(file: str, number: int, line: bytes) -> RawRow:
    encoding = "utf-8-sig" if number == 1 else "utf-8"
    text = line.decode(encoding, "surrogateescape").strip()
    try:
        require_utf8(text)
        return RawRow(file, number, parse_json(text), text=text)
    except DataError as error:
        return RawRow(file, number, fault=str(error), text=text)


def require_utf8(text: str) -> None:
    """Raises DataError if text that was decoded with `surrogateescape` held bytes that are not UTF-8."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte, column = ord(text[error.start]) & 0xFF, error.start + 1
        raise DataError(f"byte 0x{byte:02x} at column {column} is not UTF-8; save the file as UTF-8") from None
