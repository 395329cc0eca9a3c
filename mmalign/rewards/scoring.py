"""Asking one reward for scores: once for equal samples, one by one where it fails on several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from math import isnan
from numbers import Real
from typing import Any

from mmalign.contract.components import Reward
from mmalign.contract.values import Sample
from mmalign.errors import MmalignError, TrainingError
from mmalign.rewards.failures import Outcome, Scores

Key = bytes | int
"""Digest of a sample's content, or its position where the content has no bytes."""

CACHE_SIZE = 1_000_000
"""Scores that a cache keeps, about 100 MB; then the oldest go."""


_LARGEST = 3.4e38


class ScoreCache:
    """Scores by content, for rewards that declare themselves deterministic; failures are not kept."""

    def __init__(self, size: int = CACHE_SIZE) -> None:
        self.size = size
        self._scores: dict[Key, Scores] = {}

    def find(self, keys: Sequence[Key]) -> dict[Key, Outcome]:
        """Returns the scores that are known."""
        return {key: self._scores[key] for key in keys if key in self._scores}

    def add(self, outcomes: Mapping[Key, Outcome]) -> None:
        """Keeps the scores of samples that have a digest."""
        for key, outcome in outcomes.items():
            if isinstance(key, bytes) and not isinstance(outcome, Exception) and not any(map(isnan, outcome)):
                self._scores[key] = outcome
        while len(self._scores) > self.size:
            del self._scores[next(iter(self._scores))]


def score_distinct(
    name: str, reward: Reward, samples: Mapping[Key, Sample], cache: ScoreCache | None
) -> dict[Key, Outcome]:
    """Scores distinct samples, those in the cache without asking the reward.

    Raises:
        TrainingError: the reward did not return one finite number, NaN or exception a sample; of a reward with
            dimensions: one number for each of them, or one exception.
    """
    known = cache.find(list(samples)) if cache else {}
    new = [key for key in samples if key not in known]
    outcomes = dict(zip(new, score_each(name, reward, [samples[key] for key in new]), strict=True))
    if cache:
        cache.add(outcomes)
    return known | outcomes


def score_each(name: str, reward: Reward, samples: Sequence[Sample]) -> list[Outcome]:
    """Scores samples; if the reward raises on several, each alone."""
    outcome = _attempt(name, reward, samples) if samples else []
    if not isinstance(outcome, Exception):
        return outcome
    if len(samples) == 1:
        return [outcome]
    return [one for sample in samples for one in score_each(name, reward, [sample])]


def _attempt(name: str, reward: Reward, samples: Sequence[Sample]) -> list[Outcome] | Exception:
    try:
        values = _materialise(reward.score(samples), len(samples))
    except MmalignError:
        raise  # a wrong configuration fails on every sample alike, and its message is the user's
    # A reward is foreign code that sees text nobody foresaw: whatever it raises costs one sample, not the run.
    except Exception as error:  # noqa: BLE001
        return error
    return _check_scores(name, reward.dimensions, values, len(samples))


def _materialise(values: Any, count: int) -> Any:
    """Makes lists of arrays, tensors and generators, and numbers of those that hold one; leaves all else as it is."""
    if hasattr(values, "tolist"):
        return values.tolist()
    if isinstance(values, Iterator):
        values = list(islice(values, count + 1))  # one that never ends is one too long
    if not isinstance(values, (list, tuple)):
        return values
    return [one.tolist() if hasattr(one, "tolist") else one for one in values]


def _check_scores(name: str, dimensions: Sequence[str], scores: Any, count: int) -> list[Outcome]:
    wanted = f"{len(dimensions)} numbers each" if dimensions else "numbers"
    if not isinstance(scores, Sequence) or isinstance(scores, str):
        expected = f"{count} lists of {wanted}" if dimensions else f"a list of {count} {wanted}"
        raise TrainingError(f"rewards.{name}: expected {expected}, got {type(scores).__name__}")
    if len(scores) != count:
        raise TrainingError(f"rewards.{name}: expected {count} scores, one a sample, got {len(scores)}")
    rows = enumerate(scores)
    return [one if isinstance(one, Exception) else _check_score(name, dimensions, at, one) for at, one in rows]


def _check_score(name: str, dimensions: Sequence[str], position: int, score: Any) -> Scores:
    row = _as_row(score) if dimensions else (score,)
    if len(row) != max(1, len(dimensions)):
        expected = f"expected {len(dimensions)} numbers: {', '.join(dimensions)}"
        raise TrainingError(f"rewards.{name}: score {position} is {score!r}; {expected}")
    try:
        numbers = tuple(float(one) for one in row if isinstance(one, (Real, Decimal)))
    except OverflowError:
        numbers = ()
    # The scores of a run are float32.
    if len(numbers) != len(row) or any(abs(one) > _LARGEST for one in numbers):
        expected = "expected a finite number, or NaN for no score"
        raise TrainingError(f"rewards.{name}: score {position} is {score!r:.100}; {expected}")
    return numbers


def _as_row(score: Any) -> Sequence[Any]:
    return score if isinstance(score, Sequence) and not isinstance(score, str) else ()
