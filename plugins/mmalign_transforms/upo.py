"""Pairs sampled by how certain a classifier is of them, from the probabilities of several stochastic passes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from math import ceil, log

from pydantic import Field

from mmalign import DataError, Parameters, Record, Score, Transform, suggest
from mmalign_transforms.reading import Comparison, iter_comparisons
from mmalign_transforms.tally import Tally, seeded

NAME = "upo"
SMOOTHING = "label_smoothing"


class UpoConfig(Parameters):
    """Pairs sampled by certainty."""

    score: str = "pair_probability"
    """Vector score of the chosen response: the probability of the pair in every stochastic pass."""
    keep: float = Field(default=1.0, gt=0, le=1)
    """Share of the pairs that is sampled, without replacement."""
    mu: float = Field(default=1.0, ge=0)
    """Sharpness of the sampling weights (1 - information gain)^mu; 0 is uniform."""
    seed: int = Field(default=0, ge=0)
    """The sample depends on this, the ids and the weights only."""


@dataclass(eq=False, kw_only=True)
class Upo(Transform):
    """Samples records of one pair each, and writes the label smoothing of the pair as a vector score of the chosen one.

    The fields are those of `UpoConfig`.

    Source: arXiv:2409.11212, section 3.
    Differs: the printed smoothing 1 / (P + 1) is at least 1/2, which would prefer the rejected response; see
    `label_smoothing`.
    """

    score: str
    keep: float
    mu: float
    seed: int

    whole = True

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the sampled records in their order."""
        everything = list(records)
        gains = [self._gain(record) for record in everything]
        kept = set(
            nsmallest(ceil(self.keep * len(gains)), range(len(gains)), key=lambda i: self._key(everything[i], gains[i]))
        )
        tally = Tally(NAME)
        tally.add("records (not sampled)", len(gains) - len(kept))
        yield from (_smooth(everything[index], gains[index]) for index in sorted(kept))
        tally.report()

    def _gain(self, record: Record) -> float:
        chosen = _only_pair(record).chosen
        rows = [row for row in record.scores if row.item == chosen and row.level == "vector"]
        values = [value for row in rows if row.name == self.score for value in row.values if value is not None]
        if not values:
            known = suggest(self.score, {row.name for row in rows})
            raise DataError(
                f"{NAME}: record {record.id!r}: response {chosen!r} has no vector score {self.score!r}{known}"
            )
        if not all(0 <= value <= 1 for value in values):
            raise DataError(f"{NAME}: record {record.id!r}: score {self.score!r}: expected probabilities, got {values}")
        return information_gain(values)

    def _key(self, record: Record, gain: float) -> float:
        """An exponential variate over the weight: the smallest ones are a weighted sample without replacement."""
        weight: float = (1 - gain) ** self.mu
        return -log(1 - seeded(self.seed, record.id).random()) / weight


def information_gain(probabilities: Sequence[float]) -> float:
    """Returns the entropy of the mean minus the mean entropy, in nats: 0 for passes that agree, ln 2 at most.

    Args:
        probabilities: of one pair in every pass, in [0, 1].

    >>> information_gain([0.0, 1.0]) == log(2)
    True
    """
    mean = sum(probabilities) / len(probabilities)
    gain = _entropy(mean) - sum(map(_entropy, probabilities)) / len(probabilities)
    return max(0.0, gain)


def sampling_weights(gains: Sequence[float], mu: float) -> list[float]:
    """Returns (1 - gain)^mu of every pair, normalised.

    Source: arXiv:2409.11212.
    Differs: mu is printed as a factor, which would cancel.
    """
    weights = [(1 - gain) ** mu for gain in gains]
    return [weight / sum(weights) for weight in weights]


def label_smoothing(gain: float) -> float:
    """Returns gain / (2 ln 2): 0 where all passes agree, and at most 1/2, a coin flip.

    Differs: from arXiv:2409.11212, see `Upo`.
    """
    return gain / (2 * log(2))


def _entropy(probability: float) -> float:
    return -sum(p * log(p) for p in (probability, 1 - probability) if p > 0)


def _only_pair(record: Record) -> Comparison:
    pairs = list(iter_comparisons(record))
    if len(pairs) != 1:
        raise DataError(f"{NAME}: record {record.id!r}: expected one pair, got {len(pairs)}")
    return pairs[0]


def _smooth(record: Record, gain: float) -> Record:
    row = Score(
        item=_only_pair(record).chosen,
        name=SMOOTHING,
        level="vector",
        values=(label_smoothing(gain),),
        keys=(SMOOTHING,),
    )
    return record.model_copy(update={"scores": (*record.scores, row)})
