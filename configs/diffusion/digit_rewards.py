"""A plugin file for the digit recipes: three rewards, and an evaluator that compares with the start of the run.

`ink` and `digit_seen` are what is optimised. `digit_judge` was trained on other digits than what `digit_seen` asks,
so it returns whether the images stay what was asked for. `docs/plugins.md` says how such a file is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any, ClassVar, Literal

from pydantic import Field

from mmalign import (
    EvaluationContext,
    Evaluator,
    EvaluatorSpec,
    Parameters,
    Record,
    Reward,
    RewardSpec,
    Rollout,
    Sample,
    hookimpl,
)


def read_pixels(samples: Sequence[Sample]) -> Any:
    """Reads the images of the samples: [N, 1, 16, 16] in [0, 1], 1 is ink."""
    import numpy as np
    import torch

    images = [np.asarray(sample.output.convert("L"), dtype=np.float32) for sample in samples]
    return torch.from_numpy(np.stack(images)[:, None] / 255)


class Ink(Reward):
    """Mean ink of the image, in [0, 1]."""

    deterministic = True

    def score(self, samples: Sequence[Sample]) -> list[float]:
        means: list[float] = read_pixels(samples).mean(dim=(1, 2, 3)).tolist()
        return means


class Recognised(Reward):
    """1 if a classifier sees the digit that the prompt asks for, else 0."""

    deterministic = True
    classifier: ClassVar[Literal["reward", "judge"]] = "reward"

    def score(self, samples: Sequence[Sample]) -> list[float]:
        import torch

        from mmalign_diffusion.digits.assets import load_classifier

        with torch.no_grad():
            seen = load_classifier(self.classifier)(read_pixels(samples)).argmax(dim=1).tolist()
        return [float(digit == int(sample.record.prompt_text)) for digit, sample in zip(seen, samples, strict=True)]


class Judge(Recognised):
    """The same of a classifier that saw other digits in its training."""

    classifier: ClassVar[Literal["reward", "judge"]] = "judge"


class GainConfig(Parameters):
    """Comparison with the start of the run."""

    limit: int | None = Field(default=None, ge=1)
    """Only the first so many held-out prompts; null takes all."""


class Gain(Evaluator):
    """Samples one image for each held-out prompt, from the same noise at every evaluation.

    Attributes:
        scores: of the latest evaluation, one score a prompt by reward; `reward` is the composite.
        images: of the latest evaluation, of which the run draws a sheet: (record, image) of the first prompts.
        outputs: of the latest evaluation, one PIL image a prompt.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.scores: dict[str, list[float]] = {}
        self.images: list[tuple[Record, Any]] = []
        self.outputs: list[Any] = []
        self._start: dict[str, list[float]] = {}

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """Returns the mean of every reward, and its gain since the first evaluation with a 95 % interval."""
        prompts, backend = context.records[: self.limit], context.backend
        groups = context.generate(prompts, 1)
        rollouts = [Rollout.build(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]
        self.outputs = [rollout.responses[0].output for rollout in rollouts]
        self.images = [(one.record, image) for one, image in zip(rollouts[:10], self.outputs, strict=False)]
        rewards = backend.score_rollouts(rollouts).cpu()  # [N, K]
        self.scores = {"reward": backend.compose(rewards).tolist()}
        self.scores |= dict(zip(backend.reward_names, rewards.T.tolist(), strict=True))
        self._start = self._start or self.scores
        metrics = {}
        for name, scores in self.scores.items():
            gain, low, high = paired_gain(self._start[name], scores)
            metrics[name] = sum(scores) / len(scores)
            metrics |= {f"{name}/gain": gain, f"{name}/gain_low": low, f"{name}/gain_high": high}
        return metrics


def paired_gain(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Computes the mean difference of pairs with its 95 % interval, by the normal approximation.

    >>> paired_gain([0.0, 0.0], [1.0, 1.0])
    (1.0, 1.0, 1.0)
    """
    differences = [new - old for old, new in zip(before, after, strict=True)]
    count = len(differences)
    mean = sum(differences) / count
    if count < 2:
        return mean, nan, nan
    variance = sum((one - mean) ** 2 for one in differences) / (count - 1)
    half = 1.96 * (variance / count) ** 0.5
    return mean, mean - half, mean + half


@hookimpl
def register_rewards() -> list[RewardSpec]:
    return [
        RewardSpec(name="ink", summary="Mean ink of an image, in [0, 1].", target="digit_rewards:Ink"),
        RewardSpec(
            name="digit_seen",
            summary="1 if a classifier sees the digit that is asked for.",
            target="digit_rewards:Recognised",
        ),
        RewardSpec(name="digit_judge", summary="The same, by an independent classifier.", target="digit_rewards:Judge"),
    ]


@hookimpl
def register_evaluators() -> list[EvaluatorSpec]:
    return [
        EvaluatorSpec(
            name="gain",
            summary="Rewards of the held-out prompts against the start of the run, with paired intervals.",
            target="digit_rewards:Gain",
            config="digit_rewards:GainConfig",
        )
    ]
