"""From raw rows to records: columns renamed, the format told apart, every row checked, its media found.

A bad row is a value here, not an error, so that one can stop at it, set it aside, or list them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.contract.formats import RawRow
from mmalign.data.json_text import readable
from mmalign.data.records import Record
from mmalign.errors import DataError, MediaError, PluginError, suggest
from mmalign.sources.format_choice import format_code
from mmalign.sources.layouts import LayoutReader

if TYPE_CHECKING:
    from mmalign.config.data import DataConfig


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
    layouts: LayoutReader,
    *,
    find_media: bool = True,
    check_media: CheckMedia | None = None,
) -> Iterator[Reading]:
    """Reads every row of `parts`, in order.

    Args:
        layouts: what makes records of rows.
        find_media: make paths of media, which are relative to the data file, relative to the current folder.
        check_media: raises MediaError for a record whose media, with paths relative to the current folder, are bad.
    """
    places: dict[str, str] = {}
    for index, row in enumerate(_iter_rows(parts, config.path)):
        try:
            record = _read_row(row, index, config, layouts)
            # A stream may be endless; its ids are not remembered.
            if not config.streaming:
                _check_id(record.id, row.place, places)
            found = _find_media(record, Path(row.file).parent)
            if check_media is not None:
                check_media(found)
        except MediaError as error:
            yield Reading(row, None, readable(error), record.id)
        except (DataError, PluginError) as error:
            yield Reading(row, None, readable(error))
        else:
            yield Reading(row, found if find_media else record)


def _iter_rows(parts: Iterable[Iterable[RawRow]], path: str) -> Iterator[RawRow]:
    for part in parts:
        with format_code(f"format of {path}", getattr(part, "form", part)):
            yield from part


def _read_row(row: RawRow, index: int, config: DataConfig, layouts: LayoutReader) -> Record:
    """Makes a record of one row; `index` names one that has no id."""
    if row.fault:
        raise DataError(row.fault)
    if not isinstance(row.value, Mapping):
        raise DataError(f"expected a JSON object, got {type(row.value).__name__}")
    record = layouts.read(_rename(row.value, config.columns), index)
    pairs = record.count_pairs()
    if pairs > config.max_pairs:
        raise DataError(
            f"labels: {pairs:,} pairs, more than max_pairs, {config.max_pairs:,}; raise it, or cut rankings"
        )
    return record


def _rename(data: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    for theirs, ours in names.items():
        if theirs not in data:
            raise DataError(f"columns: no column {theirs!r}{suggest(theirs, data)}")
        if ours in data and ours not in names:
            raise DataError(f"columns: {theirs!r} cannot be renamed to {ours!r}, which is a column already")
    return {names.get(key, key): value for key, value in data.items()}


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
