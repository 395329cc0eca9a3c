"""Statistical rejection sampling: candidates thinned out until they are samples of the optimal policy, then paired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from random import Random
from typing import Literal

from pydantic import Field

from mmalign import DataError, Label, Parameters, Record, Transform
from mmalign_transforms.cutting import keep_labelled
from mmalign_transforms.existing import Existing, take_over
from mmalign_transforms.reading import require_ratings
from mmalign_transforms.tally import Tally, seeded

NAME = "rso"

Pairing = Literal["first_round", "tournament"]


class RsoConfig(Parameters):
    """Statistical rejection sampling."""

    score: str | None = None
    """Name of the reward; default: the first score of level response."""
    beta: float = Field(default=0.5, gt=0)
    """KL penalty of the policy that is sampled: large keeps candidates as they come, small keeps the best."""
    accept: int = Field(default=8, ge=2)
    """Candidates that are kept of every prompt."""
    pairing: Pairing = "first_round"
    """first_round: random disjoint pairs; tournament: winners meet again until one is left."""
    labels: Literal["reward", "sampled"] = "reward"
    """The higher reward wins, or wins with probability sigmoid(difference)."""
    existing: Existing = "refuse"
    """What becomes of comparisons that a record has already."""
    seed: int = Field(default=0, ge=0)
    """Everything random depends on this and the record's id only."""


@dataclass(eq=False, kw_only=True)
class Rso(Transform):
    """Keeps candidates by rejection sampling on stored rewards and pairs them at random.

    The fields are those of `RsoConfig`. The responses are taken for samples of the reference.

    Source: arXiv:2309.06657, Algorithm 1 and section 3.3.
    """

    score: str | None
    beta: float
    accept: int
    pairing: Pairing
    labels: Literal["reward", "sampled"]
    existing: Existing
    seed: int

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the records that have a pair."""
        tally = Tally(NAME)
        for record in records:
            labelled = self._pair(record, tally)
            if labelled.labels:
                yield keep_labelled(labelled)
            else:
                tally.add("records (all accepted responses have one reward)")
        tally.report()

    def _pair(self, record: Record, tally: Tally) -> Record:
        old = take_over(record, self.existing, NAME, tally)
        rewards = require_ratings(record, self.score, NAME)
        if self.accept > len(rewards):
            raise DataError(
                f"{NAME}: record {record.id!r}: accept: {self.accept}, but only {len(rewards)} responses have a reward"
            )
        chance = seeded(self.seed, record.id)
        accepted = sample_candidates(list(rewards.values()), self.accept, self.beta, chance)
        rids = [list(rewards)[index] for index in accepted]
        meetings = draw_pairs(rids, rewards, self.pairing, self.labels, chance)
        labels = [self._label(rewards, *pair) for pair in meetings if rewards[pair[0]] != rewards[pair[1]]]
        tally.add("pairs (equal rewards)", len(meetings) - len(labels))
        return record.model_copy(update={"labels": (*old, *labels)})

    def _label(self, rewards: Mapping[str, float], winner: str, loser: str) -> Label:
        gap = rewards[winner] - rewards[loser]
        return Label(kind="pair", order=((winner,), (loser,)), strength=gap, annotator=f"rule:{self.score or 'reward'}")


def acceptance_probabilities(rewards: Sequence[float], beta: float) -> list[float]:
    """Returns exp((r - max r) / beta) of every candidate; 1 for the best.

    >>> [round(probability, 5) for probability in acceptance_probabilities([1.0, 2.0], beta=0.5)]
    [0.13534, 1.0]
    """
    best = max(rewards)
    return [exp((reward - best) / beta) for reward in rewards]


def sample_candidates(rewards: Sequence[float], count: int, beta: float, chance: Random) -> list[int]:
    """Samples `count` candidates without replacement; returns their indices in the order of acceptance.

    In every pass a remaining candidate is accepted with its probability relative to the best remaining one.

    Args:
        count: at most the number of candidates.

    Source: arXiv:2309.06657, Algorithm 1.
    Differs: the last pass is cut off at `count`.
    """
    remaining = list(range(len(rewards)))
    accepted: list[int] = []
    while remaining and len(accepted) < count:
        probabilities = acceptance_probabilities([rewards[index] for index in remaining], beta)
        taken = [
            index for index, probability in zip(remaining, probabilities, strict=True) if chance.random() < probability
        ]
        accepted += taken
        remaining = [index for index in remaining if index not in set(taken)]
    return accepted[:count]


def draw_pairs(
    rids: Sequence[str], rewards: Mapping[str, float], pairing: Pairing, labels: str, chance: Random
) -> list[tuple[str, str]]:
    """Returns the (winner, loser) of every meeting; who has no opponent in a round goes on to the next one.

    Args:
        labels: `reward` or `sampled`, see `RsoConfig`.
    """
    field, meetings = list(rids), []
    chance.shuffle(field)
    while len(field) > 1:
        matches = [
            _play(rewards, one, other, labels, chance) for one, other in zip(field[::2], field[1::2], strict=False)
        ]
        meetings += matches
        if pairing == "first_round":
            break
        field = [winner for winner, _ in matches] + field[len(field) // 2 * 2 :]
    return meetings


def _play(rewards: Mapping[str, float], one: str, other: str, labels: str, chance: Random) -> tuple[str, str]:
    ahead = rewards[one] - rewards[other]
    # Written with the smaller exponent of the two, which cannot overflow.
    probability = 1 / (1 + exp(-abs(ahead)))
    likely = (one, other) if ahead >= 0 else (other, one)
    return likely[::-1] if labels == "sampled" and chance.random() >= probability else likely
