"""From a row to a record and back by its layout: what every layout has in common.

A layout sees its own columns only. The others go to `meta` here, and come back from there, so that no layout can lose
one without a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmalign.data.json_text import dump_json
from mmalign.data.record_rows import Row as RecordRow
from mmalign.data.records import Message, Record
from mmalign.errors import DataError
from mmalign.sources.format_choice import BoundLayout, Formats, check_columns, format_code

_MESSAGES = ("prompt", "responses.messages")
_ALWAYS = {"id", "meta", "responses", "responses.rid", "labels.strength", *_MESSAGES}
_ALWAYS |= {f"{name}.{key}" for name in _MESSAGES for key in ("role", "content", "content.type", "content.text")}
_NAMED = 20
_WITH = {
    "labels": {"labels.kind", "labels.order"},
    "media": {"media.mid", "media.type", "media.uri", *(f"{name}.content.media" for name in _MESSAGES)},
    "scores": {"scores.item", "scores.name", "scores.level", "scores.value"},
}
"""Fields that come with one that a layout holds."""
_LISTS = frozenset({*_WITH, "notes", "tree"})
"""Fields of which a layout may hold some parts and not others; of any other it holds all or nothing."""


@dataclass
class LayoutReader:
    """Reads rows by the layouts that fit them.

    Attributes:
        unread: how many rows have a column that their layout does not read, by layout and column.
    """

    formats: Formats
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)

    def read(self, row: Mapping[str, Any], index: int) -> Record:
        """Makes a record; a row without an `id` is named `row-INDEX`.

        Raises:
            DataError: no layout fits, or a value is wrong; the message starts with the column.
        """
        columns = {str(name): value for name, value in row.items() if value is not None}
        bound = self.formats.for_row(columns)
        name = str(columns.get("id", f"row-{index}"))
        if bound.spec.whole:
            return _read(bound, columns, name)
        self.formats.check_misspelt(columns, bound)
        check_columns(columns, bound)
        known = {key: value for key, value in columns.items() if key in bound.spec.known and key != "id"}
        record = _read(bound, known, name)
        extra = {key: value for key, value in columns.items() if key not in bound.spec.known}
        if not extra:
            return record
        self.unread.update((bound.spec.name, key) for key in extra)
        return record.model_copy(update={"meta": dump_json({**extra, **record.metadata})})

    def describe_unread(self) -> list[str]:
        """Words, for every layout, which columns were not read."""
        described = []
        for layout in dict.fromkeys(layout for layout, _ in self.unread):
            names = [f"{name} ({count} rows)" for (one, name), count in self.unread.items() if one == layout]
            names = names[:_NAMED] + [f"and {len(names) - _NAMED} more"] * (len(names) > _NAMED)
            described.append(
                f"kept in meta, where no model sees them, as {layout} has no such columns: {', '.join(names)}"
            )
        return described


def _read(bound: BoundLayout, columns: Mapping[str, Any], name: str) -> Record:
    with format_code(f"format {bound.spec.name!r}", bound.layout):
        return bound.layout.read(columns, name)


# -- writing ----------------------------------------------------------------------------------------------------------


@dataclass
class LayoutWriter:
    """Writes records as rows of one layout, and counts what the rows do not hold.

    Attributes:
        lost: how many records had a field, a response or a pair that no row holds.
    """

    bound: BoundLayout
    compare: bool = True
    lost: Counter[str] = field(default_factory=Counter)

    def write(self, record: Record) -> list[dict[str, Any]]:
        """Returns the rows of a record.

        Raises:
            DataError: the layout has no place for what the record says.
        """
        spec, layout = self.bound.spec, self.bound.layout
        with format_code(f"format {spec.name!r}", layout):
            written = layout.write(record)
        if spec.whole:
            return [dict(row) for row in written]
        extra = record.metadata
        hidden = sorted(set(extra) & spec.known)
        if hidden:
            raise DataError(f"meta.{hidden[0]}: has the name of a column of {spec.name}; rename it")
        names = [record.id] if len(written) == 1 else [f"{record.id}-{number}" for number in range(len(written))]
        rows = [{**({"id": name} if name else {}), **extra, **row} for name, row in zip(names, written, strict=True)]
        if self.compare:
            self.lost.update(self._find_lost(record, rows))
        return rows

    def describe_lost(self) -> str:
        """Words what the rows do not hold; empty if they hold everything."""
        named = [f"{name} ({count} records)" for name, count in sorted(self.lost.items())]
        return f"not held by {self.bound.spec.name}, and left out: {', '.join(named)}" if named else ""

    def _find_lost(self, record: Record, rows: Sequence[Mapping[str, Any]]) -> set[str]:
        """Names what a record says and its rows, read back, do not."""
        holds = self.bound.layout.holds
        kept = _ALWAYS | holds | {name for one in holds for name in _WITH.get(one, ())}
        whole = tuple(f"{name}." for name in holds - _LISTS)
        fields = {name for name in find_fields(record) - kept if not name.startswith(whole)}
        # Of what is lost altogether its parts are not named as well.
        lost = {name for name in fields if not any(name.startswith(f"{other}.") for other in fields)}
        reader = LayoutReader(Formats.of(self.bound))
        back = [reader.read(row, index) for index, row in enumerate(rows)]
        if _said(record) - {said for one in back for said in _said(one)}:
            lost.add("responses")
        if record.tree and not any(one.tree for one in back):
            lost.add("tree")
        return lost | _find_lost_labels(record, back)


def _find_lost_labels(record: Record, back: Sequence[Record]) -> set[str]:
    judged = _judged(record)
    kept: dict[tuple[object, ...], float | None] = {}
    for one in back:
        kept |= _judged(one)
    if judged.keys() - kept.keys():
        return {"labels"}
    # A verdict is the sign of a strength; a margin is a number.
    strengths = {key: value for key, value in judged.items() if value is not None}
    return {"labels.strength"} if any(kept[key] != value for key, value in strengths.items()) else set()


def find_fields(record: Record) -> set[str]:
    """Names the fields that a record has beyond the defaults, `responses.model` and the like.

    >>> sorted(find_fields(Record.from_text("q", ["a"])))[:3]
    ['prompt', 'prompt.content', 'prompt.content.text']
    """
    return set(_iter_fields(record, ""))


def _iter_fields(row: RecordRow, prefix: str) -> Iterator[str]:
    for name, info in type(row).model_fields.items():
        value = getattr(row, name)
        if value == info.default or (isinstance(value, tuple) and not value):
            continue
        yield prefix + name
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, RecordRow):
                yield from _iter_fields(one, f"{prefix}{name}.")


def _said(record: Record) -> set[tuple[object, ...]]:
    """The conversations of a record, prompt and response joined: where one ends is for each layout to say."""
    return {_turns((*record.prompt, *response.messages)) for response in record.responses}


def _judged(record: Record) -> dict[tuple[object, ...], float | None]:
    """The comparisons and verdicts of a record, each with its strength, None if it has none."""
    said = [_turns((*record.prompt, *response.messages)) for response in record.responses]
    pairs = [((said[chosen], said[rejected]), strength) for chosen, rejected, strength in record.pair_indices()]
    places = {response.rid: index for index, response in enumerate(record.responses)}
    verdicts = [
        ((said[places[label.order[0][0]]], label.strength > 0), label.strength)
        for label in record.labels
        if label.kind == "unary" and label.strength is not None and label.order[0][0] in places
    ]
    return {key: None if strength != strength else strength for key, strength in (*pairs, *verdicts)}


def _turns(messages: Sequence[Message]) -> tuple[object, ...]:
    return tuple((one.role, one.text, tuple(part.type for part in one.content)) for one in messages)
