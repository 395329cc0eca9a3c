"""Opens plain, gzipped and zstd files for reading and writing; what comes out of a small file is bounded."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from mmalign import DataError, ReadOptions

FREE_BYTES = 64 * 2**20
"""Bytes that any compressed file may become: small files compress well, and do no harm."""


class _Bounded(io.RawIOBase):
    """A stream that raises DataError once it has given more bytes than a file of this size may become."""

    def __init__(self, stream: Any, path: Path, options: ReadOptions) -> None:
        self._stream = stream
        self._path = path
        self._options = options
        self._most = max(FREE_BYTES, int(path.stat().st_size * options.expansion))
        self._given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._stream.read(len(buffer))
        self._given += len(block)
        if self._given > self._most:
            raise DataError(
                f"{self._path}: becomes more than {self._options.expansion:g} times its size; if that is meant, "
                f"raise {self._options.where}.max_expansion"
            )
        buffer[: len(block)] = block
        return len(block)


@contextmanager
def open_bounded(path: Path, options: ReadOptions) -> Iterator[IO[bytes]]:
    """Opens a file for reading, decompressed if its name ends in `.gz` or `.zst`.

    Raises:
        DataError: it cannot be opened, is damaged, or becomes more than `options.expansion` times its size.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    with raw:
        if path.suffix == ".gz":
            yield io.BufferedReader(_Bounded(gzip.open(raw), path, options))
        elif path.suffix == ".zst":
            import pyarrow

            yield io.BufferedReader(_Bounded(pyarrow.CompressedInputStream(raw, "zstd"), path, options))
        else:
            yield raw


@contextmanager
def damaged_archive(path: Path, position: Callable[[], object] = str) -> Iterator[None]:
    """Turns what reading a damaged or cut-off compressed file raises into a DataError that starts with its place.

    Args:
        position: returns the number of the line at hand, if lines are counted.
    """
    kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix, "")
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
        what = f"damaged or cut-off {kind} file" if kind else "cannot be read"
        place = f"{path}:{position()}".removesuffix(":")
        raise DataError(f"{place}: {what} ({error}); copy or compress it again") from None


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Opens a file for writing text in UTF-8, compressed if its name ends in `.gz` or `.zst`."""
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
            yield cast("IO[str]", file)
    elif path.suffix == ".zst":
        import pyarrow

        with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
            wrapped = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            yield wrapped
            wrapped.flush()
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
