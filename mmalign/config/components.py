"""What a configuration says of a part: its name, the part's own parameters, and the keys the engine reads itself.

`RewardComponent` has the most keys: the engine shapes and combines the scores of a reward, see
`mmalign.rewards.composition`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from mmalign.contract.specs import Parameters, Unbounded

Weight = Annotated[float, Unbounded("a negative one turns the part around")]
Score = Annotated[float, Unbounded("in the units of the reward")]


class Component(BaseModel):
    """A named part and its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    name: str
    """Which part: `mmalign list` shows all; the other keys are the part's own."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The keys that belong to the plugin."""
        return dict(self.model_extra or {})


def key_path(key: str, index: int, components: Sequence[Component]) -> str:
    """The key path of a component; the only one of its list may stand in the file without a list."""
    return key if len(components) == 1 else f"{key}[{index}]"


class WeightedComponent(Component):
    """A part of a sum."""

    weight: Weight = 1.0
    """Factor of the part in the sum."""


class Constraint(Parameters):
    """A bound on a reward's mean score that a Lagrange multiplier holds; give `at_least` or `at_most`."""

    at_least: Score | None = None
    """Lowest mean score that is wanted, in the reward's own units."""
    at_most: Score | None = None
    """Highest mean score that is wanted, in the reward's own units."""
    multiplier_rate: float = Field(default=0.05, gt=0)
    """How much a round that misses the bound by 1 adds to the multiplier."""
    initial_multiplier: float = Field(default=0.0, ge=0)
    """The multiplier at the start."""

    @model_validator(mode="after")
    def _check_one_bound(self) -> Constraint:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expected one of at_least and at_most")
        return self


class Shaping(BaseModel):
    """What becomes of scores: threshold, then normalise, then clip, then weight or constraint."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    weight: Weight = 1.0
    """Factor in the sum; 0 for scores that are only reported."""
    threshold: Score | None = None
    """Scores become 1 where they are at least this, else 0."""
    normalise: Literal["running"] | None = None
    """`running`: in training, scores are divided by their running deviation after taking off their running mean."""
    clip: tuple[Score, Score] | None = None
    """Lowest and highest score that count; with `normalise`, in standard deviations."""
    constraint: Constraint | None = None
    """A bound on the mean score, in place of a weight."""

    @field_validator("clip")
    @classmethod
    def _check_clip(cls, clip: tuple[float, float] | None) -> tuple[float, float] | None:
        if clip is not None and not -inf < clip[0] < clip[1] < inf:
            raise ValueError(f"expected [low, high] with low below high, both finite, got {list(clip)}")
        return clip

    @model_validator(mode="after")
    def _check_constraint(self) -> Shaping:
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


_EXCLUDED = frozenset({"weight", "normalise", "clip"})
"""What a constraint takes the place of."""


class DimensionConfig(Shaping, Parameters):
    """What becomes of one dimension of a reward; a key that is not given is that of the reward."""

    def over(self, shared: Mapping[str, Any]) -> DimensionConfig:
        """Adds what is `shared` by all dimensions, except where this one's own keys exclude it."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        excluded = _EXCLUDED if own.get("constraint") else {"constraint"} if own.keys() & _EXCLUDED else frozenset()
        taken = {name: value for name, value in shared.items() if name not in excluded}
        # Without validation: every value has been checked, and what the reward's keys get wrong is said of them.
        return DimensionConfig.model_construct(**taken | own)


class RewardComponent(Shaping, WeightedComponent):
    """A reward and what becomes of its scores: threshold, then normalise, then clip, then weight or constraint."""

    label: str | Annotated[int, Field(ge=0)] | None = None
    """Name of this reward in metrics, reports and messages; for a reward with a parameter `label` of its own (as
    `classifier`), that parameter."""
    cache: bool = False
    """Keep scores for later calls; only for rewards that give equal samples equal scores, always."""
    dimensions: dict[str, DimensionConfig] = Field(default_factory=dict)
    """Settings of single dimensions, by name; others, and keys that are not given, follow the reward's own settings."""

    @field_validator("dimensions")
    @classmethod
    def _complete_dimensions(
        cls, dimensions: dict[str, DimensionConfig], info: ValidationInfo
    ) -> dict[str, DimensionConfig]:
        shared = {name: info.data[name] for name in Shaping.model_fields if name in info.data}
        return {name: own.over(shared) for name, own in dimensions.items()}

    def shaping(self, dimension: str = "") -> Shaping:
        """Returns the settings of a dimension; those of the reward itself where it has none of its own."""
        return self.dimensions.get(dimension, self)


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
        shapings = dict(_iter_shapings(rewards))
        if not any(shaping.counted for shaping in shapings.values()):
            raise ValueError(f"composition.name: {self.name!r} needs a reward with a weight and without a constraint")
        if self.name == "min":
            return
        for where, shaping in shapings.items():
            if shaping.weight not in (0.0, 1.0):
                raise ValueError(f"{where}.weight: 'product' has no use for weights; use 1, or 0 to report only")
            if shaping.normalise and shaping.counted:
                raise ValueError(f"{where}.normalise: 'product' needs scores of at least 0; use clip: [0, 1]")


def _iter_shapings(rewards: Sequence[RewardComponent]) -> Iterator[tuple[str, Shaping]]:
    for index, reward in enumerate(rewards):
        yield f"rewards[{index}]", reward
        for name, own in reward.dimensions.items():
            yield f"rewards[{index}].dimensions.{name}", own
