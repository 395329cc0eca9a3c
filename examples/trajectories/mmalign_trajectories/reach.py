"""A reward on decoded paths."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from mmalign import Parameters, Reward, Sample
from mmalign_trajectories.paths import parse_task


class ReachConfig(Parameters):
    """Parameters of the reward."""

    scale: float = Field(default=1.0, gt=0)
    """The distance that costs a reward of 1."""


class Reach(Reward):
    """Scores how close a path ends to the goal that the prompt names."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Returns minus the distance between the goal and the last point, in units of `scale`."""
        return [-math.dist(parse_task(sample.record).goal, sample.output[-1]) / self.scale for sample in samples]
