"""A question with a preferred and a rejected answer: RLAIF-V's rows with an image, Orca's with a system message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign import DataError, Layout, Record
from mmalign_formats.drafts import Draft, pair, read_text
from mmalign_formats.rows import (
    has_media,
    iter_pairs,
    joined,
    require_text,
    split_opening,
    without_nulls,
    write_media,
)
from mmalign_formats.turns import add_system, join_prompt, read_message


class Questions(Layout):
    """Reads and writes RLAIF-V's rows."""

    holds = frozenset({"labels", "media"})

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of a comparison; the image stands before the question."""
        prompt = add_system([{"role": "user", "content": read_text(columns, "question")}], columns.get("system"))
        sides = {side: read_message(columns[side], side) for side in ("chosen", "rejected")}
        prompt, responses = join_prompt(prompt, sides)
        return Draft(prompt, responses, labels=pair()).finish(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a row for every comparison."""
        rows = []
        for chosen, rejected, _ in iter_pairs(record):
            system, turns = split_opening(record.prompt)
            if len(turns) != 1 or turns[0].role != "user":
                raise DataError("prompt: expected one user turn, which is all that such rows hold")
            shown = [index for index, part in enumerate(turns[0].content) if part.type != "text"]
            if has_media([*chosen, *rejected]) or shown not in ([], [0]):
                raise DataError("such rows hold one image, before the question")
            row = {"question": turns[0].text, "chosen": require_text(chosen, "chosen"), "system": system}
            row |= {"rejected": require_text(rejected, "rejected")}
            rows.append({**without_nulls(row), **write_media(record, joined(record.prompt), single=True)})
        return rows
