"""Length of the response: a linear penalty on missing a target or on passing a maximum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mmalign import Parameters, Reward, Sample
from mmalign_rewards.texts import response_text

Unit = Literal["words", "characters", "steps"]


class LengthConfig(Parameters):
    """Length of the response."""

    target: int = Field(ge=1)
    """The length that is wanted, or the longest that is free of penalty; in `unit`."""
    mode: Literal["target", "maximum"] = "target"
    """`target` penalises shorter and longer responses alike, `maximum` only longer ones."""
    unit: Unit = "words"
    """words: pieces between white space; characters: Unicode code points; steps: what the model generated."""


class Length(Reward):
    """Minus the distance from `target`, as a fraction of it.

    `target`: -|length - target| / target. `maximum`: -max(0, length - target) / target. So 0 is best, an empty response
    scores -1 against a target, twice the target scores -1, and there is no lower bound.
    """

    deterministic = True

    def __init__(self, target: int, mode: Literal["target", "maximum"] = "target", unit: Unit = "words") -> None:
        self.target = target
        self.mode = mode
        self.unit = unit

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Returns one score of at most 0 a sample.

        Raises:
            TypeError: words or characters of an output that is not a text.
            ValueError: steps of a response that was not encoded.
        """
        return [self._score_length(self._measure(sample)) for sample in samples]

    def _score_length(self, length: int) -> float:
        excess = length - self.target
        distance = max(0, excess) if self.mode == "maximum" else abs(excess)
        return -distance / self.target

    def _measure(self, sample: Sample) -> int:
        if self.unit == "steps":
            if sample.steps is None:
                raise ValueError("unit 'steps': the response was not encoded; use words or characters")
            return sample.steps
        text = response_text(sample)
        return len(text.split()) if self.unit == "words" else len(text)
