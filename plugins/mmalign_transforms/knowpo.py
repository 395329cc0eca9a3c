"""Pairs about which knowledge to trust: answers from a given context against answers from memory, and the reverse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from mmalign import DataError, Label, Parameters, Record, Response, Transform, suggest
from mmalign_transforms.prompts import prepend_text
from mmalign_transforms.tally import Tally, seeded
from mmalign_transforms.wording import require_fields

NAME = "knowpo"

Error = Literal["ignorance", "over_inclusion"]


class KnowpoConfig(Parameters):
    """Pairs about conflicts between a context and what a model remembers."""

    template: str = "Context: {context}"
    """How the context stands before the question."""
    frame: str = "{answer}"
    """The sentence that all answers are put into, so that length and style do not tell them apart."""
    refusal: str = "I don't know."
    """The answer where neither the context nor memory has one; stands without the frame."""
    cap: int = Field(default=3000, ge=1)
    """Most pairs of one kind of context and one error."""
    irrelevant_cap: int = Field(default=1750, ge=1)
    """Most pairs with an irrelevant context and a known answer, and with an unknown one."""
    seed: int = Field(default=0, ge=0)
    """Seeds which error an item shows, where it could show both."""

    _check_template = field_validator("template")(require_fields("context"))
    _check_frame = field_validator("frame")(require_fields("answer"))


class KnowpoItem(Parameters):
    """What `meta` says of a question."""

    context: str
    """The passage that the prompt shows."""
    context_kind: Literal["related", "counterfactual", "irrelevant"]
    """related and counterfactual ones hold an answer; a counterfactual one is made up."""
    answer: str | None = Field(default=None, min_length=1)
    """What the context answers; none for an irrelevant one."""
    memory: str | None = Field(default=None, min_length=1)
    """What the model answers without a context; none if it does not know."""
    span: str | None = Field(default=None, min_length=1)
    """A wrong answer that stands in the context."""


@dataclass(eq=False, kw_only=True)
class Knowpo(Transform):
    """Makes a pair of every question whose `meta` holds a `KnowpoItem`.

    The fields are those of `KnowpoConfig`. The context of the label is `kind:error`.

    Source: arXiv:2408.03297.
    Differs: a span chosen from an irrelevant context is not said to come from memory, as the official code does.
    """

    template: str
    frame: str
    refusal: str
    cap: int
    irrelevant_cap: int
    seed: int

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields a pair for every item that shows an error, as long as its cell is not full."""
        tally = Tally(NAME)
        cells: Counter[str] = Counter()
        for record in records:
            item = _read_item(record)
            cell, chosen, rejected = self._choose(item, seeded(self.seed, record.id))
            cap = self.irrelevant_cap if item.context_kind == "irrelevant" else self.cap
            if rejected is None:
                tally.add("items (no valid wrong answer)")
            elif cells[cell] == cap:
                tally.add(f"items ({cell}: {cap} already)")
            else:
                cells[cell] += 1
                yield self._build(record, item, cell, chosen, rejected)
        tally.report()

    def _choose(self, item: KnowpoItem, chance: Random) -> tuple[str, str | None, str | None]:
        """Returns the cell and the (chosen, rejected) answers, None for a refusal; no rejected one if none is valid."""
        if item.context_kind == "irrelevant":
            known = "known" if item.memory is not None else "unknown"
            valid = item.span is not None and is_over_inclusion(item.span, item.context, item.memory)
            return f"irrelevant:{known}", item.memory, item.span if valid else None
        answer = item.answer or ""
        errors: list[tuple[Error, str]] = []
        if item.span is not None and is_over_inclusion(item.span, item.context, answer):
            errors.append(("over_inclusion", item.span))
        wrong = item.memory if item.memory is not None else self.refusal
        if is_ignorance(wrong, answer):
            errors.append(("ignorance", wrong))
        error, rejected = chance.choice(errors) if errors else ("over_inclusion", None)
        return f"{item.context_kind}:{error}", answer, rejected

    def _build(self, record: Record, item: KnowpoItem, cell: str, chosen: str | None, rejected: str) -> Record:
        texts = [self._frame(chosen), self._frame(None if rejected == self.refusal else rejected)]
        update: dict[str, Any] = {
            "prompt": prepend_text(record.prompt, self.template.format(context=item.context), "user"),
            "responses": tuple(Response.from_text(f"r{index}", text) for index, text in enumerate(texts)),
            "labels": (Label(kind="pair", order=(("r0",), ("r1",)), annotator="rule:knowpo", context=cell),),
        }
        return record.model_copy(update=update)

    def _frame(self, answer: str | None) -> str:
        return self.refusal if answer is None else self.frame.format(answer=answer)


def is_over_inclusion(rejected: str, context: str, answer: str | None) -> bool:
    """Says whether a wrong answer is a span of the context that does not hold the right answer, if there is one."""
    return rejected.casefold() in context.casefold() and is_ignorance(rejected, answer)


def is_ignorance(rejected: str, answer: str | None) -> bool:
    """Says whether a wrong answer does not hold the right one.

    >>> is_ignorance("Lyon", "Paris"), is_ignorance("Paris, France", "Paris")
    (True, False)
    """
    return answer is None or answer.casefold() not in rejected.casefold()


def _read_item(record: Record) -> KnowpoItem:
    where = f"{NAME}: record {record.id!r}"
    if record.responses:
        raise DataError(f"{where}: has responses already; expected a question with its items in meta")
    known = {key: value for key, value in record.metadata.items() if key in KnowpoItem.model_fields}
    try:
        item = KnowpoItem.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        hint = suggest(key, record.metadata) if first["type"] == "missing" else f", got {first['input']!r}"
        raise DataError(f"{where}: meta.{key}: {first['msg'][:1].lower()}{first['msg'][1:]}{hint}") from None
    if item.context_kind != "irrelevant" and (item.answer or "").casefold() not in item.context.casefold():
        raise DataError(f"{where}: meta.answer: {item.answer!r} does not stand in the context")
    if item.context_kind != "irrelevant" and not item.answer:
        raise DataError(f"{where}: meta.answer: missing; a {item.context_kind} context holds one")
    return item
