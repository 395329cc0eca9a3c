"""Reward-augmented data: prompts that name the score to be reached; at a lower one the worse response is right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import field_validator

from mmalign import DataError, Parameters, Record, Transform, Unbounded
from mmalign_transforms.cutting import split_pair
from mmalign_transforms.prompts import Role, prepend_text
from mmalign_transforms.reading import Comparison, count_unpaired, iter_comparisons, require_ratings
from mmalign_transforms.tally import Tally
from mmalign_transforms.wording import format_number, require_fields

NAME = "rad"

TEMPLATE = (
    "You are an assistant that generates responses for the instruction while implicitly achieving the following target "
    "score (on a scale of 1-10, where 1 is lowest and 10 is highest):\nOverall score: {score}."
)


class RadConfig(Parameters):
    """Reward-augmented preference data."""

    score: str | None = None
    """Name of the score that prompts are conditioned on; default: the first score of level response."""
    template: str = TEMPLATE
    """The goal, with {score}."""
    role: Role = "system"
    """Where the goal goes: into the system message, or before the first user message for models that have none."""
    equal: Literal["keep", "drop"] = "keep"
    """Pairs of equal scores: kept, they are two contradictory pairs whose gradients cancel at a margin of 0."""
    goal: Annotated[float, Unbounded("in the units of the score")] | None = None
    """Only put this score into every prompt, and change nothing else: how the trained model is to be asked."""

    _check_template = field_validator("template")(require_fields("score"))


@dataclass(eq=False, kw_only=True)
class Rad(Transform):
    """Makes two records of every pair: at the chosen response's score it wins, at the rejected one's the other wins.

    The fields are those of `RadConfig`. Pairs whose rejected response has the higher score are left out.

    Source: arXiv:2410.08067, section 3.
    Differs: the official code swaps the responses only where the goal is a system message; here they always are.
    """

    score: str | None
    template: str
    role: Role
    equal: Literal["keep", "drop"]
    goal: float | None

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields two records for every pair; with `goal`, one for every record."""
        if self.goal is not None:
            yield from (self._condition(record, self.goal) for record in records)
            return
        tally = Tally(NAME)
        for record in records:
            tally.add("labels (no pair of plain responses)", count_unpaired(record))
            for index, comparison in enumerate(iter_comparisons(record)):
                yield from self._augment(record, comparison, index, tally)
        tally.report()

    def _augment(self, record: Record, comparison: Comparison, index: int, tally: Tally) -> Iterator[Record]:
        ratings = require_ratings(record, self.score, NAME)
        missing = [rid for rid in (comparison.chosen, comparison.rejected) if rid not in ratings]
        if missing:
            raise DataError(f"{NAME}: record {record.id!r}: response {missing[0]!r} of a pair has no score")
        high, low = ratings[comparison.chosen], ratings[comparison.rejected]
        if high < low:
            tally.add("pairs (the rejected response has the higher score)")
        elif high == low and self.equal == "drop":
            tally.add("pairs (equal scores)")
        else:
            swapped = Comparison(comparison.label, comparison.rejected, comparison.chosen)
            yield self._condition(split_pair(record, comparison, f"{index}-high"), high)
            yield self._condition(split_pair(record, swapped, f"{index}-low"), low)

    def _condition(self, record: Record, score: float) -> Record:
        text = self.template.format(score=format_number(score))
        return record.model_copy(update={"prompt": prepend_text(record.prompt, text, self.role)})
