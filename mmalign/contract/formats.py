"""What the author of a format writes: how a file becomes rows (`FileFormat`), how a row becomes a record (`Layout`).

A format is one of the two; they are independent, so that every layout can stand in every kind of file. Nothing is
understood in a `RawRow` yet: it holds the columns as they stand in the file, or why they cannot be read.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, TypeAlias

from mmalign.data.json_text import readable
from mmalign.data.records import Record
from mmalign.errors import DataError

Row: TypeAlias = Mapping[str, Any]
"""The columns of a row by name; plain data, as JSON or Arrow has them."""


@dataclass(frozen=True)
class ReadOptions:
    """What the configuration says of reading a file, whatever its format.

    Attributes:
        where: key path of the data section, for messages, e.g. `data.train`.
        row_bytes: size of the largest row that is read.
        expansion: how many times its size a compressed file may become; the first 64 MiB are free.
        split, name: of a Hugging Face dataset; empty for the default.
        streaming: read as it arrives; do not load anything whole.
    """

    where: str = "data.train"
    row_bytes: int = 32 * 2**20
    expansion: float = 200.0
    split: str = ""
    name: str = ""
    streaming: bool = False


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in a file. Lines and rows count from 1.

    Attributes:
        value: the row's data; a layout reads only mappings of columns.
        fault: why it could not be read; `value` means nothing then.
        text: the line, where the file has lines; may hold undecodable bytes as surrogates.
        unit: what `number` counts, `row` in a table; empty for lines.
    """

    file: str
    number: int
    value: Any = None
    fault: str = ""
    text: str = ""
    unit: str = ""

    @property
    def place(self) -> str:
        """`file:line`, or `file:row 3` in a table."""
        return f"{self.file}:{self.unit} {self.number}" if self.unit else f"{self.file}:{self.number}"

    def show(self) -> str:
        """Returns the row as text that can be written, whatever it holds."""
        if self.text or self.value is None:
            return readable(self.text)
        try:
            return readable(json.dumps(self.value, ensure_ascii=False, default=repr))
        except (RecursionError, ValueError, TypeError):
            return f"<{type(self.value).__name__} that cannot be written as JSON>"


class Rows(Protocol):
    """An opened source of rows, which can be iterated over again and again."""

    def __iter__(self) -> Iterator[RawRow]: ...

    def fingerprint(self, *, by_content: bool) -> str:
        """Names the content; without reading it if not `by_content`."""


class FileFormat:
    """How a file, a folder or a name on the hub becomes rows, and how rows are written.

    A subclass has `read`, or `open` where rows have to be held open; `write` where it can be written. It is built with
    the fields of its config model.

    Attributes:
        flat: True if columns hold text alone; records, which are nested, are not written into it.
        tabular: True if it is an Arrow table, whose schema is better given than guessed.
        embeds: True if media of the rows, given as `data:` URIs, are kept in it as files.
    """

    flat: ClassVar[bool] = False
    tabular: ClassVar[bool] = False
    embeds: ClassVar[bool] = False

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Returns whether a folder is of this format; asked only of those that read folders."""
        return False

    def open(self, path: str, options: ReadOptions) -> Rows:
        """Opens what `path` names; what it returns is iterated over once for each pass over the data."""
        return FileRows(self, Path(path), options)

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields the rows of one file or folder.

        Raises:
            DataError: no further row can be found; the message starts with the place. A row that is bad only in itself
                is yielded with its `fault`.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither read nor open")

    def write(self, rows: Iterable[Row], path: Path, schema: Any = None) -> int:
        """Writes rows into a file or folder that does not exist yet; returns how many.

        Args:
            schema: the Arrow schema of the rows, where the layout has one.

        Raises:
            DataError: the rows cannot be written in this format.
        """
        raise DataError(f"{path}: {type(self).__name__} cannot be written")


class Layout(ABC):
    """How a row becomes a record, and a record rows. It is built with the fields of its config model.

    Attributes:
        holds: what `write` keeps of a record beside roles and texts of prompt and responses: dotted names of fields as
            `mmalign.sources.layouts.find_fields` gives them. What a record has beyond these is counted and said.
    """

    holds: ClassVar[frozenset[str]] = frozenset()

    def recognise(self, columns: Row, strength: int) -> int:
        """Returns how surely a row is of this layout; the layout with the highest number reads it, 0 is no.

        Args:
            columns: those of the row that are not null.
            strength: how many columns that tell the layout are there; 0 if none of its sets is complete.
        """
        return strength

    @abstractmethod
    def read(self, columns: Row, name: str) -> Record:
        """Makes a record of a row.

        Args:
            columns: those of the row that the spec names and that are not null. `id` is given as `name`; columns that
                the spec does not name are put into `meta` by the caller.
            name: the id of the record.

        Raises:
            DataError: a wrong value; the message starts with the column.
        """

    def write(self, record: Record) -> Sequence[Row]:
        """Returns the rows that say what the record says; there may be none. `id` and `meta` are added by the caller.

        Raises:
            DataError: the layout has no place for what the record says.
        """
        raise DataError(f"{type(self).__name__} cannot be written")

    def schema(self) -> Any:
        """Returns the Arrow schema of the rows, None if it depends on them."""
        return None


@dataclass(frozen=True)
class FileRows:
    """The rows of one file, read anew in every pass."""

    form: FileFormat
    path: Path
    options: ReadOptions

    def __iter__(self) -> Iterator[RawRow]:
        yield from self.form.read(self.path, self.options)

    def fingerprint(self, *, by_content: bool) -> str:
        """Names the content: its sha256, or, without reading it, its size and time of change."""
        if self.path.is_dir():
            files = sorted(one for one in self.path.rglob("*") if one.is_file())
            names = [f"{one.relative_to(self.path)}:{fingerprint(one, by_content=by_content)}" for one in files]
            return hashlib.sha256("\n".join(names).encode("utf-8", "surrogateescape")).hexdigest()
        return fingerprint(self.path, by_content=by_content)


def fingerprint(path: Path, *, by_content: bool) -> str:
    """Names the content of a file: its sha256, or, without reading it, its size and time of change."""
    if not by_content:
        status = path.stat()
        return f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}"
    digest = hashlib.sha256()
    with open_file(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def open_file(path: Path) -> IO[bytes]:
    """Opens a file for reading; raises DataError if it cannot be."""
    try:
        return path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
