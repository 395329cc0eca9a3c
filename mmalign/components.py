"""What a configuration says of a part: its name, the part's own parameters, and the keys the engine reads itself.

`RewardComponent` has the most keys: the engine shapes and combines the scores of a reward, see
`mmalign.reward_composition`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mmalign.specs import Parameters


class Component(BaseModel):
    """A named part and its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that belong to the plugin."""
        return dict(self.model_extra or {})


class WeightedComponent(Component):
    """A part of a sum."""

    weight: float = 1.0


class Constraint(Parameters):
    """A bound on a reward's mean score that a Lagrange multiplier holds; give `at_least` or `at_most`."""

    at_least: float | None = Field(default=None, allow_inf_nan=False)
    """Lowest mean score that is wanted, in the reward's own units."""
    at_most: float | None = Field(default=None, allow_inf_nan=False)
    """Highest mean score that is wanted, in the reward's own units."""
    multiplier_rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """How much a round that misses the bound by 1 adds to the multiplier."""
    initial_multiplier: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The multiplier at the start."""

    @model_validator(mode="after")
    def _check_one_bound(self) -> Constraint:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expected one of at_least and at_most")
        return self


class RewardComponent(WeightedComponent):
    """A reward and what becomes of its scores: threshold, then normalise, then clip, then weight or constraint."""

    threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Scores become 1 where they are at least this, else 0."""
    normalise: Literal["running"] | None = None
    """`running`: in training, scores are divided by their running deviation after taking off their running mean."""
    clip: tuple[float, float] | None = None
    """Lowest and highest score that count; with `normalise`, in standard deviations."""
    constraint: Constraint | None = None
    """A bound on the mean score, in place of a weight."""
    cache: bool = False
    """Keep scores for later calls; only for rewards that give equal samples equal scores, always."""

    @field_validator("clip")
    @classmethod
    def _check_clip(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and not clip[0] < clip[1]:
            raise ValueError(f"expected [low, high] with low below high, got {list(clip)}")
        return clip

    @model_validator(mode="after")
    def _check_constraint(self) -> RewardComponent:
        if self.constraint is not None and self.weight != 1.0:
            raise ValueError("weight: a constraint has a multiplier in its place; drop one of the two")
        shaped = "normalise" if self.normalise else "clip" if self.clip else ""
        if self.constraint is not None and shaped:
            raise ValueError(f"{shaped}: a constraint bounds the mean of the reward itself; drop one of the two")
        return self

    @property
    def counted(self) -> bool:
        """True if the score is one of those that `composition` combines."""
        return self.constraint is None and self.weight != 0


class CompositionConfig(Parameters):
    """How the rewards become one number."""

    name: Literal["weighted_sum", "product", "min"] = "weighted_sum"
    """weighted_sum: of scores times weights; min: the smallest of them; product: of scores of at least 0."""

    def check(self, rewards: tuple[RewardComponent, ...]) -> None:
        """Checks that rewards can be combined this way.

        Raises:
            ValueError: they cannot.
        """
        if self.name == "weighted_sum" or not rewards:
            return
        if not any(reward.counted for reward in rewards):
            raise ValueError(f"composition.name: {self.name!r} needs a reward with a weight and without a constraint")
        if self.name == "min":
            return
        for index, reward in enumerate(rewards):
            if reward.weight not in (0.0, 1.0):
                raise ValueError(
                    f"rewards[{index}].weight: 'product' has no use for weights; use 1, or 0 to report only"
                )
            if reward.normalise and reward.counted:
                raise ValueError(f"rewards[{index}].normalise: 'product' needs scores of at least 0; use clip: [0, 1]")
