"""Scoring of responses: runs the rewards and composes the components.

Equal samples of a call are scored once, so a reward may depend on its own sample only: not on the other samples, not
on chance, not on time. A sample that cannot be scored is NaN and counted, never a zero. No score is kept for the next
call: what a model-based reward gives differs in the last bits with the batch, and a resumed run must score as one that
never stopped.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf, isnan, nan
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from mmalign.errors import MmalignError, TrainingError
from mmalign.names import distinct_names
from mmalign.parts import Reward, Sample

logger = logging.getLogger(__name__)

_Key = bytes | int  # digest of a sample's content, or its position where the content has no bytes


@dataclass(frozen=True)
class WeightedReward:
    """A component of the composite reward.

    Attributes:
        name: how metrics and messages call it.
        reward: the scorer.
        weight: its factor in the sum; 0 scores it for the report only.
    """

    name: str
    reward: Reward
    weight: float = 1.0


class RewardScorer:
    """Scores samples with K rewards and sums the components.

    Attributes:
        names: of the K components; of equal ones the later get `_2`, `_3`, ...
        weights: [K] float32.
        failures: for every name, how many samples got no score so far; equal ones of a call count once.
    """

    def __init__(self, rewards: Sequence[WeightedReward]) -> None:
        self.names = distinct_names([reward.name for reward in rewards])
        self.weights = torch.tensor([reward.weight for reward in rewards], dtype=torch.float32)
        self.failures = dict.fromkeys(self.names, 0)
        self._rewards = [reward.reward for reward in rewards]

    def score(self, samples: Sequence[Sample]) -> Tensor:
        """Scores N samples.

        Returns:
            [N, K] float32 on the CPU; NaN where a scorer could not score.

        Raises:
            TrainingError: a reward failed on every sample, or did not return one finite number (or NaN) a sample.
        """
        keys = [_content_key(sample, position) for position, sample in enumerate(samples)]
        distinct = dict(zip(keys, samples, strict=True))
        columns = [self._score_component(index, distinct) for index in range(len(self.names))]
        rows = [[column[key] for column in columns] for key in keys]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(samples), len(self.names))

    def compose(self, rewards: Tensor) -> Tensor:
        """Sums the components [N, K] with their weights: [N]; NaN if any of non-zero weight is NaN."""
        weights = self.weights.to(rewards)
        counted = weights != 0
        return (rewards[:, counted] * weights[counted]).sum(dim=1)

    def _score_component(self, index: int, samples: Mapping[_Key, Sample]) -> dict[_Key, float]:
        name = self.names[index]
        outcomes = dict(zip(samples, _score_each(name, self._rewards[index], list(samples.values())), strict=True))
        causes = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
        if causes and len(causes) == len(samples):
            message = f"rewards.{name}: failed on all {len(causes)} samples; first cause: {_describe(causes[0])}"
            raise TrainingError(message) from causes[0]
        scores = {key: nan if isinstance(outcome, Exception) else outcome for key, outcome in outcomes.items()}
        self._count_failures(name, list(scores.values()), causes)
        return scores

    def _count_failures(self, name: str, scores: Sequence[float], causes: Sequence[Exception]) -> None:
        count = sum(map(isnan, scores))
        if count and not self.failures[name]:
            cause = _describe(causes[0]) if causes else "it returned NaN"
            text = "rewards.%s: no score for %d of %d samples; first cause: %s; further failures are only counted"
            logger.warning(text, name, count, len(scores), cause)
        self.failures[name] += count


def _score_each(name: str, reward: Reward, samples: Sequence[Sample]) -> list[float | Exception]:
    outcome = _attempt(name, reward, samples) if samples else []
    if not isinstance(outcome, Exception):
        return [*outcome]
    if len(samples) == 1:
        return [outcome]
    return [one for sample in samples for one in _score_each(name, reward, [sample])]


def _attempt(name: str, reward: Reward, samples: Sequence[Sample]) -> list[float] | Exception:
    try:
        values = reward.score(samples)
    except MmalignError:
        raise  # a wrong configuration fails on every sample alike, and its message is the user's
    # A reward is foreign code that sees text nobody foresaw: whatever it raises costs one sample, not the run.
    except Exception as error:  # noqa: BLE001
        return error
    return _check_scores(name, values, len(samples))


def _check_scores(name: str, values: Any, count: int) -> list[float]:
    scores = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(scores, Sequence) or isinstance(scores, str):
        raise TrainingError(f"rewards.{name}: expected a list of {count} numbers, got {type(values).__name__}")
    if len(scores) != count:
        raise TrainingError(f"rewards.{name}: expected {count} scores, one a sample, got {len(scores)}")
    for position, score in enumerate(scores):
        if not isinstance(score, Real) or isinf(score):
            expected = "expected a finite number, or NaN for no score"
            raise TrainingError(f"rewards.{name}: score {position} is {score!r}; {expected}")
    return [float(score) for score in scores]


def _content_key(sample: Sample, position: int) -> _Key:
    content = _output_bytes(sample.output)
    if content is None:
        return position
    # The whole record but its responses: a reward may read the media, a gold answer in the metadata, or the id.
    context = sample.record.with_responses([]).to_json()
    response = sample.response.model_dump_json(exclude={"rid"})
    digest = hashlib.sha256()
    for piece in (context.encode(), response.encode(), str(sample.steps).encode(), content):
        digest.update(len(piece).to_bytes(8, "big") + piece)
    return digest.digest()


def _output_bytes(output: Any) -> bytes | None:
    if isinstance(output, str):
        return output.encode("utf-8", "surrogatepass")
    if isinstance(output, Tensor):
        content = output.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif hasattr(output, "tobytes") and not _holds_objects(output):  # arrays and PIL images
        content = bytes(output.tobytes())
    else:
        return None
    layout = ("dtype", "shape") if hasattr(output, "dtype") else ("mode", "size")
    return "|".join(str(getattr(output, name, "")) for name in layout).encode() + content


def _holds_objects(output: Any) -> bool:
    # The bytes of an array of Python objects are their addresses.
    return bool(getattr(getattr(output, "dtype", None), "hasobject", False))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
