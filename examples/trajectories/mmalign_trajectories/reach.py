"""A reward on decoded paths."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from pydantic import Field

from mmalign import Parameters, Reward, Sample


class ReachConfig(Parameters):
    """Parameters of the reward."""

    scale: float = Field(default=1.0, gt=0)
    """The distance is divided by this."""


class Reach(Reward):
    """Scores how close a path ends to the goal that the prompt names."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Returns minus the distance between goal and last point; higher is better."""
        return [-math.dist(json.loads(s.record.prompt_text)["goal"], s.output[-1]) / self.scale for s in samples]
