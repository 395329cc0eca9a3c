"""Raw rows of data files: JSONL, gzipped JSONL, Parquet, saved or hosted Hugging Face datasets.

Nothing is understood here: a row is a line of text, or the columns of a table. Lines and rows count from 1.
"""

from __future__ import annotations

import difflib
import glob
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmalign.data.record_checks import parse_json
from mmalign.errors import DataError, suggest

if TYPE_CHECKING:
    from mmalign.data.sources import DataConfig

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
QUARANTINE_SUFFIX = ".quarantine.jsonl"
_BATCH = 256
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in a file.

    Attributes:
        place: `file:line`, or `file:row 3` in a table.
        text: the line, where the file has lines; may hold undecodable bytes as surrogates.
        columns: the row, where the file is a table.
    """

    file: str
    number: int
    text: str = ""
    columns: dict[str, Any] | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}" if self.columns is None else f"{self.file}:row {self.number}"

    def parse(self) -> Any:
        """Returns the row's data; raises DataError if the line is not JSON in UTF-8."""
        if self.columns is not None:
            return {name: _drop_nulls(value) for name, value in self.columns.items()}
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            byte = ord(self.text[error.start]) & 0xFF
            column = error.start + 1
            raise DataError(f"byte 0x{byte:02x} at column {column} is not UTF-8; save the file as UTF-8") from None
        return parse_json(self.text)

    def show(self) -> str:
        """Returns the row as text that can be written, whatever it holds."""
        if self.columns is not None:
            return json.dumps(self.columns, ensure_ascii=False, default=repr)
        return self.text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class RowFile:
    """One file of lines or a Parquet table."""

    path: Path

    def __iter__(self) -> Iterator[RawRow]:
        yield from _iter_parquet(self.path) if self.path.suffix == ".parquet" else _iter_lines(self.path)

    def fingerprint(self, *, by_content: bool) -> str:
        """Names the content: its sha256, or, without reading it, its size and time of change."""
        if not by_content:
            status = self.path.stat()
            return f"{self.path.resolve()}:{status.st_size}:{status.st_mtime_ns}"
        digest = hashlib.sha256()
        with _open(self.path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


@dataclass(frozen=True)
class RowTable:
    """A Hugging Face dataset; a streamed one is read as it arrives."""

    name: str
    dataset: Any
    identity: str

    def __iter__(self) -> Iterator[RawRow]:
        number = 0
        # The Arrow format leaves images as bytes and paths; the default one would decode them all.
        for table in self.dataset.with_format("arrow").iter(batch_size=_BATCH):
            for columns in table.to_pylist():
                number += 1
                yield RawRow(self.name, number, columns=columns)

    def fingerprint(self, *, by_content: bool) -> str:
        """Names the content by the dataset's own fingerprint, or by its name and version if it is streamed."""
        return str(getattr(self.dataset, "_fingerprint", None) or self.identity)


Rows = RowFile | RowTable


def _drop_nulls(value: Any) -> Any:
    """Drops the null keys inside a column: Arrow gives every object the keys of all others."""
    if isinstance(value, dict):
        return {key: _drop_nulls(one) for key, one in value.items() if one is not None}
    return [_drop_nulls(one) for one in value] if isinstance(value, list) else value


def find_rows(config: DataConfig, where: str) -> list[Rows]:
    """Finds what `config.path` names.

    Raises:
        DataError: nothing is there, or it is of an unknown kind; the message starts with `where.path`.
    """
    path = Path(config.path).expanduser()
    if path.is_dir():
        return [_load_saved(config, path, where)]
    if path.is_file():
        return [RowFile(_require_known(path, where))]
    if any(mark in config.path for mark in "*?["):
        return list(_match_files(config.path, where))
    if _HUB_ID.fullmatch(config.path) and not path.parent.is_dir() and not config.path.endswith(SUFFIXES):
        return [_load_hosted(config, where)]
    raise DataError(f"{where}.path: no such file {config.path!r}{_nearest(path)}")


def _match_files(pattern: str, where: str) -> Iterator[RowFile]:
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if not name.endswith(QUARANTINE_SUFFIX)]
    if not found:
        raise DataError(f"{where}.path: no file matches {pattern!r}")
    for path in found:
        yield RowFile(_require_known(path, where))


def _require_known(path: Path, where: str) -> Path:
    if not path.name.endswith(SUFFIXES):
        hint = "; write one JSON object a line and name it .jsonl" if path.suffix == ".json" else ""
        raise DataError(f"{where}.path: {path}: expected a file named {', '.join(SUFFIXES)}{hint}")
    return path


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {str(path.parent)!r}"
    names = [entry.name for entry in path.parent.iterdir() if entry.name.endswith(SUFFIXES)]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


# -- lines and tables -------------------------------------------------------------------------------------------------


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _iter_lines(path: Path) -> Iterator[RawRow]:
    number = 0
    try:
        with _open(path) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            for number, line in enumerate(file, start=1):
                encoding = "utf-8-sig" if number == 1 else "utf-8"
                text = line.decode(encoding, "surrogateescape").strip()
                if text:
                    yield RawRow(str(path), number, text)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        problem = f"damaged or cut-off gzip file ({error})"
        raise DataError(f"{path}:{number + 1}: {problem}; copy or compress it again") from None


def _iter_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with _open(path) as raw, parquet.ParquetFile(raw) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for columns in batch.to_pylist():
                    number += 1
                    yield RawRow(str(path), number, columns=columns)
    except (pyarrow.ArrowException, OSError) as error:
        problem = f"damaged, cut-off or not a Parquet file ({str(error).splitlines()[0]})"
        raise DataError(f"{path}:row {number + 1}: {problem}; copy or write it again") from None


# -- Hugging Face datasets --------------------------------------------------------------------------------------------


def _load_saved(config: DataConfig, path: Path, where: str) -> RowTable:
    if not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        raise DataError(
            f"{where}.path: {str(path)!r} is a folder, but not a saved Hugging Face dataset; "
            f"name a file, or '{path}/*.jsonl'"
        )
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{where}.path: {str(path)!r} cannot be loaded: {error}") from None
    if isinstance(loaded, datasets.DatasetDict):
        split = config.split or "train"
        if split not in loaded:
            raise DataError(f"{where}.split: {str(path)!r} has no split {split!r}{suggest(split, loaded)}")
        loaded = loaded[split]
    return RowTable(str(path), loaded.to_iterable_dataset() if config.streaming else loaded, str(path))


def _load_hosted(config: DataConfig, where: str) -> RowTable:
    import datasets

    split = config.split or "train"
    try:
        loaded = datasets.load_dataset(config.path, config.name, split=split, streaming=config.streaming)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{where}.path: no local file {config.path!r}, and it cannot be loaded from the Hugging Face hub: {reason}"
        ) from None
    return RowTable(config.path, loaded, f"{config.path}:{config.name}:{split}:{loaded.info.version}")
