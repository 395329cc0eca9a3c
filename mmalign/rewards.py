"""The rewards of a run: scoring, counting failures, composing.

Equal samples of a call are scored once, so a reward may depend on its own sample only: not on the other samples, not
on chance, not on time. A sample that cannot be scored is NaN and counted, never a zero.

By default no score is kept for the next call: what a model-based reward gives differs in the last bits with the batch,
and a resumed run must score as one that never stopped. `cache: true` keeps the scores of a reward that declares itself
`deterministic`; they are the same whether they come from the cache or not, so resumption stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor

from mmalign.components import CompositionConfig, RewardComponent
from mmalign.names import distinct_names
from mmalign.parts import Reward
from mmalign.reward_composition import Composition
from mmalign.reward_failures import FailureCount
from mmalign.reward_keys import content_key
from mmalign.reward_scoring import Key, ScoreCache, score_distinct
from mmalign.values import Sample


@dataclass(frozen=True)
class BoundReward:
    """A scorer, and what the configuration says of its scores."""

    component: RewardComponent
    reward: Reward


class RewardScorer:
    """Scores samples with K rewards.

    Attributes:
        names: of the K components; of equal ones the later get `_2`, `_3`, ...
        composition: makes one reward of the components.
    """

    def __init__(self, rewards: Sequence[BoundReward], form: CompositionConfig | None = None) -> None:
        components = [bound.component for bound in rewards]
        self.names = distinct_names([component.name for component in components])
        self.composition = Composition(self.names, components, form or CompositionConfig())
        self._rewards = [bound.reward for bound in rewards]
        self._caches = [ScoreCache() if component.cache else None for component in components]
        self._failures = [FailureCount(name) for name in self.names]

    @property
    def failures(self) -> dict[str, int]:
        """For every name, how many samples got no score so far; equal ones of a call count once."""
        return {count.name: count.total for count in self._failures}

    def score(self, samples: Sequence[Sample]) -> Tensor:
        """Scores N samples.

        Returns:
            [N, K] float32 on the CPU; NaN where a scorer could not score.

        Raises:
            TrainingError: a reward failed on every sample, or did not return one finite number (or NaN) a sample.
        """
        digests = [content_key(sample) for sample in samples]
        keys: list[Key] = [position if digest is None else digest for position, digest in enumerate(digests)]
        distinct = dict(zip(keys, samples, strict=True))
        columns = [self._score_component(index, distinct) for index in range(len(self.names))]
        rows = [[column[key] for column in columns] for key in keys]
        return torch.tensor(rows, dtype=torch.float32).reshape(len(samples), len(self.names))

    def _score_component(self, index: int, samples: dict[Key, Sample]) -> dict[Key, float]:
        outcomes = score_distinct(self.names[index], self._rewards[index], samples, self._caches[index])
        self._failures[index].add(list(outcomes.values()))
        return {key: nan if isinstance(outcome, Exception) else outcome for key, outcome in outcomes.items()}
