"""The run configuration: YAML, checked by models before anything heavy loads.

Every component is `{name: ..., parameters}`; its parameters belong to the plugin that offers the name, and are
checked against the plugin's own model in `mmalign.planning.assembly`. An unknown key anywhere is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import Field, field_validator, model_validator

from mmalign.config.components import Component, CompositionConfig, RewardComponent, WeightedComponent
from mmalign.config.data import DataSection
from mmalign.config.reading import Overrides, read_config
from mmalign.config.sections import CheckpointConfig, EvaluationConfig, ReferenceConfig, TrainConfig
from mmalign.config.validation import one_or_many, validate
from mmalign.contract.specs import Parameters
from mmalign.masking import mask_values

COMPONENT_KINDS = {
    "modality": "modality",
    "objective": "objective",
    "collector": "collector",
    "rewards": "reward",
    "advantage": "advantage",
    "quantities": "quantity",
    "decoding": "decoding",
    "engine": "engine",
    "data.train.transforms": "transform",
    "data.eval.transforms": "transform",
    "evaluation.evaluators": "evaluator",
}
"""Key path of every component and the plugin kind that its `name` is looked up in."""


_TEACHER = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = ("policy", "reference", "behaviour", "chosen", "rejected")
_INTERPOLATION = re.compile(r"(\\*)\$\{")


class RunConfig(Parameters):
    """One run."""

    modality: Component
    """The model family and the model."""
    data: DataSection
    """Training and held-out records."""
    objective: tuple[WeightedComponent, ...] = Field(min_length=1)
    """The loss: one component or a list of them, summed with their weights. There is no default."""
    collector: Component | None = None
    """Online runs: how prompts become rollouts."""
    rewards: tuple[RewardComponent, ...] = ()
    """Scorers of responses."""
    composition: CompositionConfig = CompositionConfig()
    """How the rewards become one number, the composite reward."""
    advantage: Component | None = None
    """Online runs: how rewards become advantages."""
    quantities: tuple[Component, ...] = ()
    """Parameters of quantities that plugins compute, e.g. which scores of the records they read."""
    decoding: Component = Component(name="sample")
    """How responses are sampled, in training and evaluation."""
    engine: Component = Component(name="hf")
    """Where responses are sampled: in this process, or by a server."""
    reference: ReferenceConfig = ReferenceConfig()
    """What the policy is compared with."""
    teachers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Frozen further models by name; each sets keys of `modality` anew, e.g. `{teacher: {model: ...}}`."""
    train: TrainConfig = TrainConfig()
    """Optimisation."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Held-out evaluation."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """What is saved, and when."""
    trackers: tuple[str, ...] = ()
    """Experiment trackers beside `metrics.jsonl`: tensorboard, wandb, trackio, ..."""
    plugins: tuple[str, ...] = ()
    """Plugin files that are not installed, e.g. `./my_loss.py`."""
    output: str
    """Folder of the run."""

    _accept_one = field_validator("objective", "rewards", "quantities", mode="before")(one_or_many)

    @field_validator("teachers")
    @classmethod
    def _check_names(cls, teachers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in teachers:
            if not _TEACHER.fullmatch(name) or name in _TAKEN:
                raise ValueError(
                    f"{name!r} cannot name a teacher: quantities begin with it, as in `teacher_logps`; expected small "
                    f"letters, digits and _, and none of {', '.join(_TAKEN)}"
                )
        return teachers

    @model_validator(mode="after")
    def _check_length(self) -> RunConfig:
        if self.train.steps is None and self.train.epochs is None:
            raise ValueError("train.steps or train.epochs is needed")
        return self

    @model_validator(mode="after")
    def _check_composition(self) -> RunConfig:
        self.composition.check(self.rewards)
        return self


def load_config(path: str | Path, overrides: Overrides = ()) -> RunConfig:
    """Reads and checks a run configuration.

    Args:
        path: a YAML file.
        overrides: `["train.steps=10"]` or `{"train.steps": 10}`; dotted keys, lists by index (`rewards.0.weight`).
            A mapping changes the keys that it names, but one with a `name` is another component and replaces all.

    Raises:
        ConfigError: the file cannot be read, or a key is unknown, missing or of a wrong type; all errors at once.
    """
    return validate(RunConfig, read_config(path, overrides), "", str(path))


def dump_config(config: RunConfig) -> str:
    """Writes the configuration as YAML that loads to the same configuration, but for secrets, which are masked."""
    # Not yaml.safe_dump: by its rules a text such as 1e-5 needs no quotes, by those of the reader it is a number.
    return OmegaConf.to_yaml(OmegaConf.create(_escape(mask_values(config.model_dump(mode="json")))))


def _escape(value: Any) -> Any:
    """Keeps `${...}` in texts, e.g. in a chat template, from being read as an interpolation."""
    if isinstance(value, str):
        return _INTERPOLATION.sub(lambda match: 2 * match[1] + r"\${", value)
    if isinstance(value, Mapping):
        return {key: _escape(one) for key, one in value.items()}
    return [_escape(one) for one in value] if isinstance(value, list) else value
