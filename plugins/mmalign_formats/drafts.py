"""What every layout hands over in the end: turns, feedback and media of a row, as a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmalign import DataError, Record, read_template_arguments, read_tools
from mmalign_formats.media import COLUMN_NAMES, RowMedia, Turn

SHARED = ("tools", "chat_template_kwargs", *COLUMN_NAMES)
"""Columns that mean the same in all layouts of conversations."""


@dataclass
class Draft:
    """A record in the making.

    Attributes:
        prompt, responses: chat messages; responses are named `r0`, `r1`, ... in their order.
        facts: further fields of each response (`model`), by its place.
    """

    prompt: list[Turn]
    responses: Sequence[list[Turn]] = ()
    labels: list[Turn] = field(default_factory=list)
    scores: list[Turn] = field(default_factory=list)
    notes: list[Turn] = field(default_factory=list)
    facts: Mapping[int, Turn] = field(default_factory=dict)
    tree: list[Turn] = field(default_factory=list)
    meta: str | None = None

    def finish(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes the record, with media, tools and template arguments of the row.

        Raises:
            DataError: media do not fit their placeholders, or a value is wrong.
        """
        media = RowMedia(columns)
        media.add_placeholders([*self.prompt, *(turn for turns in self.responses for turn in turns)], self.prompt)
        data = {
            "id": name,
            "prompt": [media.fill(turn) for turn in self.prompt],
            "responses": [
                {"rid": f"r{index}", **self.facts.get(index, {}), "messages": [media.fill(turn) for turn in turns]}
                for index, turns in enumerate(self.responses)
            ],
            "labels": self.labels,
            "scores": self.scores,
            "notes": self.notes,
            "tree": self.tree,
            "tools": read_tools(columns["tools"]) if "tools" in columns else None,
            "chat_template_kwargs": _read_arguments(columns),
            "meta": self.meta,
        }
        media.check_all_used()
        return Record.from_dict({**data, "schema": "mmalign/1", "media": media.used})


def _read_arguments(columns: Mapping[str, Any]) -> str | None:
    given = columns.get("chat_template_kwargs")
    return None if given is None else read_template_arguments(given)


def pair(strength: float | None = None) -> list[Turn]:
    """Returns the labels of a row whose first response is preferred to its second."""
    return [{"kind": "pair", "order": [["r0"], ["r1"]], "strength": strength}]


def verdict(good: bool) -> list[Turn]:
    """Returns the labels of a row whose response is desirable, or is not."""
    return [{"kind": "unary", "order": [["r0"]], "strength": 1.0 if good else -1.0}]


def score(index: int, name: str, value: float) -> Turn:
    """Returns a number about a response."""
    return {"item": f"r{index}", "name": name, "level": "response", "value": float(value)}


def read_flag(columns: Mapping[str, Any], name: str) -> bool:
    """Reads true or false; also 1 and 0, and, from columns of text, the words.

    Raises:
        DataError: anything else; the message starts with the column.
    """
    value = columns[name]
    words = {"true": True, "1": True, "false": False, "0": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if isinstance(value, bool) or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise DataError(f"{name}: expected true or false, got {value!r:.40}")


def read_number(columns: Mapping[str, Any], name: str) -> float:
    """Reads a finite number; also, from columns of text, a written one.

    Raises:
        DataError: anything else; the message starts with the column.
    """
    value = columns[name]
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        number = float(value)
        if number - number != 0:
            raise ValueError
    except (ValueError, OverflowError):
        raise DataError(f"{name}: expected a number, got {value!r:.40}") from None
    return number


def read_text(columns: Mapping[str, Any], name: str) -> str:
    """Reads a string; raises DataError for anything else."""
    value = columns[name]
    if not isinstance(value, str):
        raise DataError(f"{name}: expected a string, got {value!r:.40}")
    return value
