"""Responses drawn in proportion to their positive advantage: the sampling of A-LoL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import floor

from pydantic import Field

from mmalign import DataError, Parameters, Record, Transform, suggest
from mmalign_transforms.cutting import keep_responses
from mmalign_transforms.reading import read_ratings, require_ratings
from mmalign_transforms.tally import Tally, seeded

NAME = "a_lol"


class ALoLSamplingConfig(Parameters):
    """Sampling by positive advantage."""

    score: str | None = None
    """Name of the rating; default: the first score of level response."""
    value: str = "value"
    """Name of the score that holds the value of the prompt."""
    count: int | None = Field(default=None, ge=1)
    """Expected number of draws; default: as many as there are responses with a positive advantage."""
    seed: int = Field(default=0, ge=0)
    """The draws depend on this, the ids and the advantages only."""


@dataclass(eq=False, kw_only=True)
class ALoLSampling(Transform):
    """Makes records of one response each, as often as the response is drawn; without an advantage above 0, never.

    The fields are those of `ALoLSamplingConfig`. A response comes `count` times its share of all positive advantages on
    average, rounded up or down at random. Records are named `ID/RID/0`, `ID/RID/1`, ...

    Source: arXiv:2305.14718, advantage priority sampling.
    Differs: draws of all data at once, each response by itself, so that their order does not matter; their number
    is `count` on average.
    """

    score: str | None
    value: str
    count: int | None
    seed: int

    whole = True

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the drawn responses, in the order of the data."""
        found = [(record, self._advantages(record)) for record in records]
        positive = [advantage for _, own in found for advantage in own.values() if advantage > 0]
        tally = Tally(NAME)
        tally.add("responses (no positive advantage)", sum(len(own) for _, own in found) - len(positive))
        rate = (self.count or len(positive)) / sum(positive) if positive else 0.0
        for record, own in found:
            tally.add("responses (no rating)", len(record.responses) - len(own))
            for rid, advantage in own.items():
                yield from self._draw(record, rid, max(advantage, 0.0) * rate)
        tally.report()

    def _advantages(self, record: Record) -> dict[str, float]:
        ratings = require_ratings(record, self.score, NAME)
        values = read_ratings(record, self.value)
        for rid in ratings:
            if rid not in values:
                known = suggest(self.value, {row.name for row in record.scores})
                raise DataError(f"{NAME}: record {record.id!r}: response {rid!r} has no score {self.value!r}{known}")
        return {rid: rating - values[rid] for rid, rating in ratings.items()}

    def _draw(self, record: Record, rid: str, expected: float) -> Iterator[Record]:
        times = floor(expected + seeded(self.seed, f"{record.id}/{rid}").random())
        cut = keep_responses(record, [rid])
        yield from (cut.model_copy(update={"id": f"{record.id}/{rid}/{number}"}) for number in range(times))
