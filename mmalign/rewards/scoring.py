"""Asking one reward for scores: once for equal samples, one by one where it fails on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf, isnan
from numbers import Real
from typing import Any

from mmalign.errors import MmalignError, TrainingError
from mmalign.parts import Reward
from mmalign.rewards.failures import Outcome, Scores
from mmalign.values import Sample

Key = bytes | int
"""Digest of a sample's content, or its position where the content has no bytes."""

CACHE_SIZE = 1_000_000
"""Scores that a cache keeps, about 100 MB; then the oldest go."""


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
        values = reward.score(samples)
    except MmalignError:
        raise  # a wrong configuration fails on every sample alike, and its message is the user's
    # A reward is foreign code that sees text nobody foresaw: whatever it raises costs one sample, not the run.
    except Exception as error:  # noqa: BLE001
        return error
    return _check_scores(name, reward.dimensions, values, len(samples))


def _check_scores(name: str, dimensions: Sequence[str], values: Any, count: int) -> list[Outcome]:
    scores = values.tolist() if hasattr(values, "tolist") else values
    wanted = f"{len(dimensions)} numbers each" if dimensions else "numbers"
    if not isinstance(scores, Sequence) or isinstance(scores, str):
        expected = f"{count} lists of {wanted}" if dimensions else f"a list of {count} {wanted}"
        raise TrainingError(f"rewards.{name}: expected {expected}, got {type(values).__name__}")
    if len(scores) != count:
        raise TrainingError(f"rewards.{name}: expected {count} scores, one a sample, got {len(scores)}")
    rows = enumerate(scores)
    return [one if isinstance(one, Exception) else _check_score(name, dimensions, at, one) for at, one in rows]


def _check_score(name: str, dimensions: Sequence[str], position: int, score: Any) -> Scores:
    row = _as_row(score) if dimensions else (score,)
    if len(row) != max(1, len(dimensions)):
        expected = f"expected {len(dimensions)} numbers: {', '.join(dimensions)}"
        raise TrainingError(f"rewards.{name}: score {position} is {score!r}; {expected}")
    if not all(isinstance(one, Real) and not isinf(one) for one in row):
        expected = "expected a finite number, or NaN for no score"
        raise TrainingError(f"rewards.{name}: score {position} is {score!r}; {expected}")
    return tuple(float(one) for one in row)


def _as_row(score: Any) -> Sequence[Any]:
    row = score.tolist() if hasattr(score, "tolist") else score
    return row if isinstance(row, Sequence) and not isinstance(row, str) else ()
