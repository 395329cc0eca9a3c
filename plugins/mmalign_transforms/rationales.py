"""Rationales of preferences as records of their own: a prompt that asks why one response is better, and the answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator

from mmalign import DataError, Message, Note, Parameters, Part, Record, Response, Transform, suggest
from mmalign_transforms.reading import Comparison, iter_comparisons
from mmalign_transforms.tally import seeded
from mmalign_transforms.wording import require_fields

NAME = "rationales"
TEMPLATE = "Answer A: {first}\n\nAnswer B: {second}\n\nAnswer {better} is better. Explain why."


class RationalesConfig(Parameters):
    """Rationales of preferences."""

    kind: str = "rationale"
    """Kind of the notes that are rationales."""
    template: str = TEMPLATE
    """What is put after the last user message, with {first}, {second} and {better}, which is A or B."""
    first: Literal["random", "chosen"] = "random"
    """Which response is shown first; always the chosen one teaches that the first one is better."""
    missing: Literal["raise", "keep"] = "raise"
    """A record with a pair and no rationale is a mistake, or stays without one."""
    seed: int = Field(default=0, ge=0)
    """Seeds the order, together with the id of the record."""

    _check_template = field_validator("template")(require_fields("first", "second", "better"))


@dataclass(eq=False, kw_only=True)
class Rationales(Transform):
    """Yields every record as it is, and after it one record for every rationale; its `meta` has `rationale_of`.

    The fields are those of `RationalesConfig`. A rationale names both responses in `items`, or none where the record
    has one pair.

    Source: arXiv:2407.14477.
    Differs: the official prompt shows the chosen response first.
    """

    kind: str
    template: str
    first: Literal["random", "chosen"]
    missing: Literal["raise", "keep"]
    seed: int

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields records and rationales."""
        for record in records:
            yield record
            comparisons = list(iter_comparisons(record))
            notes = [note for note in record.notes if note.kind == self.kind]
            if comparisons and not notes and self.missing == "raise":
                known = suggest(self.kind, {note.kind for note in record.notes})
                raise DataError(f"{NAME}: record {record.id!r}: no note of kind {self.kind!r}{known}")
            for index, note in enumerate(notes):
                yield self._ask(record, _find_pair(record, note, comparisons), note, index)

    def _ask(self, record: Record, pair: Comparison, note: Note, index: int) -> Record:
        texts = {response.rid: response.text for response in record.responses}
        name = f"{record.id}/rationale-{index}"
        swapped = self.first == "random" and seeded(self.seed, name).random() < 0.5
        shown = (pair.rejected, pair.chosen) if swapped else (pair.chosen, pair.rejected)
        text = self.template.format(first=texts[shown[0]], second=texts[shown[1]], better="B" if swapped else "A")
        return Record(
            id=name,
            prompt=_append(record.prompt, text),
            responses=(Response.from_text("r0", note.text),),
            media=record.media,
            meta=json.dumps({"rationale_of": record.id}),
        )


def _find_pair(record: Record, note: Note, comparisons: list[Comparison]) -> Comparison:
    found = [one for one in comparisons if not note.items or {one.chosen, one.rejected} <= set(note.items)]
    if len(found) != 1:
        raise DataError(
            f"{NAME}: record {record.id!r}: a rationale about {list(note.items) or 'no items'} fits {len(found)} "
            "pairs; expected `items` to name the two responses of one"
        )
    return found[0]


def _append(prompt: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    last = prompt[-1]
    if last.role != "user":
        return (*prompt, Message(role="user", content=(Part(type="text", text=text),)))
    part = Part(type="text", text=f"\n\n{text}")
    return (*prompt[:-1], last.model_copy(update={"content": (*last.content, part)}))
