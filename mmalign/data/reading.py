"""From raw rows to records: columns renamed, the format told apart, every row checked, its media found.

A bad row is a value here, not an error, so that one can stop at it, set it aside, or list them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.data.files import RawRow
from mmalign.data.records import Record
from mmalign.data.trl_formats import TRL_COLUMNS, record_from_trl
from mmalign.errors import DataError, MediaError, suggest

if TYPE_CHECKING:
    from mmalign.data.sources import DataConfig


CheckMedia = Callable[[Record], None]


@dataclass(frozen=True)
class Reading:
    """A row and what became of it: a record, or the reason why not.

    Attributes:
        without_media: id of a record that would be good if its media were.
    """

    row: RawRow
    record: Record | None
    reason: str = ""
    without_media: str = ""


def read_rows(
    parts: Iterable[Iterable[RawRow]],
    config: DataConfig,
    *,
    find_media: bool = True,
    check_media: CheckMedia | None = None,
) -> Iterator[Reading]:
    """Reads every row of `parts`, in order.

    Args:
        find_media: make paths of media, which are relative to the data file, relative to the current folder.
        check_media: raises MediaError for a record whose media, with paths relative to the current folder, are bad.
    """
    places: dict[str, str] = {}
    for index, row in enumerate(row for part in parts for row in part):
        try:
            record = parse_row(row.parse(), index, config)
            # A stream may be endless; its ids are not remembered.
            if not config.streaming:
                _check_id(record.id, row.place, places)
            found = _find_media(record, Path(row.file).parent)
            if check_media is not None:
                check_media(found)
        except MediaError as error:
            yield Reading(row, None, str(error), record.id)
        except DataError as error:
            yield Reading(row, None, str(error))
        else:
            yield Reading(row, found if find_media else record)


def parse_row(data: Any, index: int, config: DataConfig) -> Record:
    """Makes a record of one row of data; `index` names a TRL row that has no id."""
    if not isinstance(data, Mapping):
        raise DataError(f"expected a JSON object, got {type(data).__name__}")
    columns = _rename(data, config.columns)
    form = _detect_format(columns) if config.format == "auto" else config.format
    return Record.from_dict(columns) if form == "mmalign" else record_from_trl(columns, index)


def _rename(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    for theirs, ours in names.items():
        if theirs not in data:
            raise DataError(f"columns: no column {theirs!r}{suggest(theirs, data)}")
        if ours in data and ours not in names:
            raise DataError(f"columns: {theirs!r} cannot be renamed to {ours!r}, which is a column already")
    return {names.get(key, key): value for key, value in data.items()}


def _detect_format(columns: Mapping[str, Any]) -> str:
    if "schema" in columns or "responses" in columns:
        return "mmalign"
    if any(name in columns for name in TRL_COLUMNS):
        return "trl"
    expected = f"'schema' and 'responses' (a record) or {', '.join(map(repr, TRL_COLUMNS))} (TRL)"
    raise DataError(f"unknown format: expected the keys {expected}, got {', '.join(map(repr, columns)) or 'none'}")


def _check_id(name: str, place: str, places: dict[str, str]) -> None:
    if not name:
        raise DataError("id: missing; expected a string that no other record has")
    if name in places:
        raise DataError(f"id: {name!r} is used already in {places[name]}; expected a unique one")
    places[name] = place


def _find_media(record: Record, folder: Path) -> Record:
    if not any(_is_relative(media.uri) for media in record.media):
        return record
    found = [
        media.model_copy(update={"uri": str(folder / media.uri)}) if _is_relative(media.uri) else media
        for media in record.media
    ]
    return record.model_copy(update={"media": tuple(found)})


def _is_relative(uri: str) -> bool:
    return "://" not in uri and not uri.startswith("data:") and not Path(uri).is_absolute()
