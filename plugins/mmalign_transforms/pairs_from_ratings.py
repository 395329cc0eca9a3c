"""Preference pairs from ratings of the responses: which of them are compared, and what becomes of ties."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from random import Random
from typing import Literal

from pydantic import Field

from mmalign import Label, Parameters, Record, Transform
from mmalign_transforms.cutting import keep_labelled
from mmalign_transforms.existing import Existing, take_over
from mmalign_transforms.reading import require_ratings
from mmalign_transforms.tally import Tally, seeded

NAME = "pairs_from_ratings"

Scheme = Literal["best_vs_worst", "best_vs_random", "best_vs_each", "adjacent", "all"]


class PairsFromRatingsConfig(Parameters):
    """Preference pairs from ratings."""

    pairs: Scheme = "best_vs_worst"
    """Who is compared: the best with the worst, a random other or each other one; neighbours in the ranking; all."""
    score: str | None = None
    """Name of the score that rates; of a vector, the mean counts. Default: the first score of level response."""
    margin: float = Field(default=0.0, ge=0)
    """Ratings that differ by no more than this are a tie."""
    ties: Literal["drop", "keep"] = "drop"
    """Leave ties out, or keep them as labels that put both responses into one group."""
    existing: Existing = "refuse"
    """What becomes of comparisons that a record has already."""
    unpaired: Literal["drop", "keep"] = "drop"
    """Responses in no pair: pair objectives make nothing of them, but they cost a forward pass."""
    seed: int = Field(default=0, ge=0)
    """Seeds `best_vs_random`; the choice depends on this and the record's id only."""


@dataclass(eq=False, kw_only=True)
class PairsFromRatings(Transform):
    """Adds one `pair` label for each two responses compared; the strength is the difference of their ratings.

    The fields are those of `PairsFromRatingsConfig`. Of equal ratings the earlier response ranks first.

    Source: `best_vs_random` on mean ratings is the binarisation of UltraFeedback in Zephyr (arXiv:2310.16944).
    Differs: the random response is drawn from those that are worse by more than the margin, as long as there is one.
    """

    pairs: Scheme
    score: str | None
    margin: float
    ties: Literal["drop", "keep"]
    existing: Existing
    unpaired: Literal["drop", "keep"]
    seed: int

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the records that have a comparison."""
        tally = Tally(NAME)
        for record in records:
            paired = self._pair(record, tally)
            if paired.labels:
                yield paired
            else:
                tally.add("records (no two ratings differ by more than the margin)")
        tally.report()

    def _pair(self, record: Record, tally: Tally) -> Record:
        old = take_over(record, self.existing, NAME, tally)
        ratings = require_ratings(record, self.score, NAME)
        proposed = propose_pairs(ratings, self.pairs, self.margin, seeded(self.seed, record.id))
        new = [label for pair in proposed for label in self._label(ratings, *pair)]
        tally.add("ties (ratings no further apart than the margin)", len(proposed) - len(new))
        labelled = record.model_copy(update={"labels": (*old, *new)})
        return keep_labelled(labelled) if self.unpaired == "drop" else labelled

    def _label(self, ratings: Mapping[str, float], chosen: str, rejected: str) -> Iterator[Label]:
        gap = ratings[chosen] - ratings[rejected]
        tied = gap <= self.margin
        if not tied or self.ties == "keep":
            order = ((chosen, rejected),) if tied else ((chosen,), (rejected,))
            yield Label(kind="pair", order=order, strength=gap, annotator=f"rule:{self.score or 'rating'}")


def propose_pairs(ratings: Mapping[str, float], scheme: Scheme, margin: float, chance: Random) -> list[tuple[str, str]]:
    """Returns the (better, worse) pairs of a scheme, ties included.

    >>> propose_pairs({"a": 1, "b": 3, "c": 2}, "adjacent", 0, Random(0))
    [('b', 'c'), ('c', 'a')]
    """
    ranked = sorted(ratings, key=lambda rid: -ratings[rid])
    best, others = ranked[0], ranked[1:]
    if scheme == "adjacent":
        return list(pairwise(ranked))
    if scheme == "all":
        return list(combinations(ranked, 2))
    if scheme == "best_vs_random":
        worse = [rid for rid in others if ratings[best] - ratings[rid] > margin] or others
        others = [chance.choice(worse)] if worse else []
    elif scheme == "best_vs_worst":
        others = others[-1:]
    return [(best, other) for other in others]
