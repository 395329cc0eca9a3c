"""Rewards that a test decides, in the place of a run's scorer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmalign import Sample
from mmalign.config.components import CompositionConfig, RewardComponent
from mmalign.rewards.composition import Composition
from mmalign.run import Run


class FixedScorer:
    """Stands in for the scorer of a run: hands out given rewards, also different ones for equal texts."""

    names = ("fixed",)
    composition = Composition(names, [RewardComponent(name="fixed")], CompositionConfig())

    def __init__(self, rewards: Sequence[float]) -> None:
        self.rewards = torch.tensor(rewards)

    def score(self, samples: Sequence[Sample]) -> Tensor:
        assert len(samples) == len(self.rewards)
        return self.rewards[:, None]


def fix_scores(run: Run, *rewards: float) -> None:
    object.__setattr__(run.assembly, "scorer", FixedScorer(rewards))
