"""Data sources: where records come from, and what happens to bad lines.

`open_source` reads everything once and keeps it, so that a mistake in the last line shows before training starts;
a streamed source keeps nothing and is checked as it is read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mmalign.config.data import DataConfig, OnError
from mmalign.contract.components import Transform
from mmalign.contract.formats import RawRow, Rows
from mmalign.data.records import Record
from mmalign.errors import ConfigError, DataError, MediaError
from mmalign.foreign import foreign_code
from mmalign.plugins.registry import Registry
from mmalign.sources.files import QUARANTINE_SUFFIX, find_rows
from mmalign.sources.format_choice import Formats
from mmalign.sources.layouts import LayoutReader
from mmalign.sources.reading import CheckMedia, Reading, read_rows
from mmalign.sources.record_count import RecordCount

_log = logging.getLogger(__name__)

CheckRecord = Callable[[Record], None]


class Source:
    """Records to iterate over; one that is not streamed has a length and an index, too.

    Attributes:
        name: the path or hub id, for messages.
        fingerprint: names the content.
        quarantined: bad rows left out, in the last pass if the source is streamed.
        left_out: ids of those of them that are bad only in their media.
        stages: how many records belong to each stage of training, in order; their sum is the length.
        places: file and line of every record that was read, by id; empty if the source is streamed.
    """

    def __init__(self, name: str, fingerprint: str, iterate: Callable[[Source], Iterator[Record]]) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.quarantined = 0
        self.left_out: list[str] = []
        self.stages: tuple[int, ...] = ()
        self.places: dict[str, tuple[str, int]] = {}
        self._iterate = iterate
        self._records: tuple[Record, ...] | None = None

    def load(self, stage: Callable[[Record], Any] = lambda record: 0) -> None:
        """Reads everything and keeps it, sorted by `stage`; records of one stage stay in their order."""
        self._records = tuple(sorted(self._iterate(self), key=stage))
        self.stages = tuple(len(list(group)) for _, group in groupby(self._records, key=stage))

    def __iter__(self) -> Iterator[Record]:
        return self._iterate(self) if self._records is None else iter(self._records)

    def __len__(self) -> int:
        return len(self._loaded())

    def __getitem__(self, index: int) -> Record:
        return self._loaded()[index]

    def _loaded(self) -> tuple[Record, ...]:
        if self._records is None:
            raise TypeError(f"{self.name} is streamed: it has no length and no index; iterate over it")
        return self._records


def open_source(
    config: DataConfig,
    transforms: Sequence[Transform] = (),
    *,
    where: str = "data.train",
    check_media: CheckMedia | None = None,
    registry: Registry | None = None,
    check_record: CheckRecord | None = None,
    check_limit: int | None = None,
) -> Source:
    """Opens what `config.path` names and checks it: all of it, or the first record if it is streamed.

    Args:
        transforms: the built transforms of `config.transforms`.
        where: key path of `config`, for messages.
        check_media: raises MediaError for a record whose media are bad, which makes it a bad row; None checks nothing.
        registry: where formats are looked up; default: all installed plugins.
        check_record: raises DataError for a record, as the transforms leave it, that cannot be used, which makes it a
            bad one, too. Streamed records are not checked before their turn.
        check_limit: how many are checked so; None for all. All are where bad ones are quarantined.

    Raises:
        ConfigError: a transform needs all records, and they are streamed.
        DataError: nothing there, nothing in it, or a bad row while `on_error` is `raise`.
    """
    if config.streaming:
        _check_streamable(transforms, where)
    formats = Formats(registry, config.format, where)
    rows = find_rows(config, formats, where)

    def iterate(source: Source) -> Iterator[Record]:
        quarantine = Quarantine(config)
        layouts = LayoutReader(formats)
        readings = read_rows(rows, config, layouts, check_media=check_media)
        records: Iterable[Record] = _iter_good(config, readings, source, quarantine)
        for index, transform in enumerate(transforms):
            records = _apply(transform, records, config, f"{where}.transforms[{index}]")
        if check_record is not None and not config.streaming:
            limit = None if config.on_error == "quarantine" else check_limit
            records = _iter_usable(records, source, quarantine, config.on_error, check_record, limit)
        return _told(records, quarantine, layouts)

    source = Source(config.path, _fingerprint(rows, by_content=not config.streaming), iterate)
    if not config.streaming:
        _load_all(source, transforms)
        return source
    if config.shuffle:
        _log.warning("%s: streamed records come in the order of the file; shuffle has no effect", where)
    next(iter(source), None)
    return source


def _load_all(source: Source, transforms: Sequence[Transform]) -> None:
    source.load(lambda record: tuple(transform.stage(record) for transform in transforms))
    if not len(source):
        raise DataError(f"{source.name}: no record is left after the transforms")
    source.places.clear()


class _PlacedError(DataError):
    """An error that says which file it is about."""


def _apply(transform: Transform, records: Iterable[Record], config: DataConfig, key: str) -> Iterator[Record]:
    """Applies a transform, whose errors name the record, not the file; those of what it reads pass as they are.

    Records that it does not yield are counted and said, whoever wrote it.
    """
    count = RecordCount(remember=not config.streaming)
    try:
        with foreign_code(f"transform {type(transform).__name__!r}", transform):
            yield from count.watch_output(transform.apply(count.watch_input(records)))
    except _PlacedError:
        raise
    except DataError as error:
        raise _PlacedError(f"{config.path}: {error}") from None
    if said := count.describe(transform.take_reasons()):
        _log.warning("%s: %s (%s): %s", config.path, key, type(transform).__name__, said)


def _check_streamable(transforms: Sequence[Transform], where: str) -> None:
    for index, transform in enumerate(transforms):
        if transform.whole or type(transform).stage is not Transform.stage:
            raise ConfigError(
                f"{where}.transforms[{index}]: looks at all records before training starts, which streaming cannot; "
                f"set {where}.streaming: false"
            )


def _fingerprint(rows: Sequence[Rows], *, by_content: bool) -> str:
    names = "\n".join(part.fingerprint(by_content=by_content) for part in rows)
    return hashlib.sha256(names.encode()).hexdigest()


def _iter_good(
    config: DataConfig, readings: Iterable[Reading], source: Source, quarantine: Quarantine
) -> Iterator[Record]:
    source.quarantined = 0
    source.left_out = []
    good = 0
    for reading in _take_good(readings, config.limit):
        if reading.record is not None:
            good += 1
            if not config.streaming:
                source.places[reading.record.id] = (reading.row.file, reading.row.number)
            yield reading.record
        elif config.on_error == "raise":
            raise _PlacedError(f"{reading.row.place}: {reading.reason}")
        else:
            quarantine.add(reading.row, reading.reason)
            source.quarantined += 1
            source.left_out += [reading.without_media] if reading.without_media else []
    if not good:
        raise _PlacedError(quarantine.describe_nothing())


def _iter_usable(
    records: Iterable[Record],
    source: Source,
    quarantine: Quarantine,
    on_error: OnError,
    check: CheckRecord,
    limit: int | None,
) -> Iterator[Record]:
    """Yields records that can be used; the first `limit` of them are checked."""
    usable = 0
    for number, record in enumerate(records):
        try:
            if limit is None or number < limit:
                check(record)
        except DataError as error:
            file, line = source.places.get(record.id, (source.name, 0))
            if on_error == "raise":
                raise type(error)(f"{file}:{line}: {error}" if line else f"{file}: {error}") from None
            quarantine.add_record(file, line, str(error), record)
            source.quarantined += 1
            source.left_out += [record.id] if isinstance(error, MediaError) else []
        else:
            usable += 1
            yield record
    if not usable and quarantine.count:
        raise _PlacedError(quarantine.describe_nothing())


def _told(records: Iterable[Record], quarantine: Quarantine, layouts: LayoutReader) -> Iterator[Record]:
    """Yields records, and logs at their end how many were left out and which columns were not read."""
    yield from records
    if quarantine.count:
        _log.warning("%s: %d bad rows left out; see %s", quarantine.source, quarantine.count, quarantine.path)
    for unread in layouts.describe_unread():
        _log.warning("%s: %s", quarantine.source, unread)


def _take_good(readings: Iterable[Reading], limit: int | None) -> Iterator[Reading]:
    """Yields readings up to the `limit`-th good one."""
    good = 0
    for reading in readings:
        yield reading
        good += reading.record is not None
        if good == limit:
            return


class Quarantine:
    """The side file of bad rows: one JSON object each with `file`, `line`, `reason` and `text`.

    Attributes:
        source: what the data are called.
        path: the side file of the first bad row's data file.
        first: the first bad row, for messages.
    """

    def __init__(self, config: DataConfig) -> None:
        self.count = 0
        self.source = config.path
        self.path: Path | None = None
        self.first = ""
        self._folder = config.quarantine_dir
        self._started: set[Path] = set()

    def add(self, row: RawRow, reason: str) -> None:
        """Appends a row; the first one replaces the side file of an earlier pass."""
        self._append(f"{row.place}: {reason}", row.file, row.number, reason, row.show())

    def add_record(self, file: str, line: int, reason: str, record: Record) -> None:
        """Appends a record that was read well, but cannot be used; `line` is 0 where a transform made it."""
        self._append(f"{file}:{line}: {reason}" if line else f"{file}: {reason}", file, line, reason, record.to_json())

    def _append(self, told: str, file: str, line: int, reason: str, text: str) -> None:
        path = self._side_file(file)
        self.path = self.path or path
        self.first = self.first or told
        self.count += 1
        # Every process of a distributed run reads the same rows; one of them writes.
        if os.environ.get("RANK", "0") == "0":
            self._write(path, {"file": file, "line": line, "reason": reason, "text": text})

    def describe_nothing(self) -> str:
        """Words that a source has no good row."""
        if not self.count:
            return f"{self.source}: empty; expected at least one record"
        return f"{self.source}: all {self.count} rows are bad, e.g. {self.first}; the rest is in {self.path}"

    def _side_file(self, file: str) -> Path:
        data = Path(file)
        folder = Path(self._folder) if self._folder else data.parent if data.exists() else Path()
        stem = Path(data.name.removesuffix(".gz").removesuffix(".zst")).stem
        return folder / f"{stem}{QUARANTINE_SUFFIX}"

    def _write(self, path: Path, line: dict[str, Any]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if path in self._started else "w", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DataError(f"{path}: cannot write bad rows: {error.strerror}; set quarantine_dir") from None
        self._started.add(path)
