"""Metrics of what the policy writes now: rewards of fresh responses, distance from the reference, length.

`evaluate` reads top to bottom. The interval is over prompts: the responses to one prompt resemble each other, so
counting each of them as independent would make it too narrow.

Shapes: P prompts, `count` responses to each, N = P * count, K reward components, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from mmalign import EvaluationContext, Evaluator, Parameters, Record, Response, Rollout, describe_output, is_image

if TYPE_CHECKING:
    from torch import Tensor


class GenerationConfig(Parameters):
    """Evaluation of sampled responses."""

    count: int = Field(default=1, ge=1)
    """Responses sampled for each prompt."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many held-out prompts; null takes all."""
    resamples: int = Field(default=2000, ge=1)
    """Bootstrap resamples of the reward's 95 % interval."""
    seed: int = Field(default=0, ge=0)
    """Seed of the bootstrap; the sampling of responses is seeded by the engine."""


class GenerationEvaluator(Evaluator):
    """Samples the held-out prompts with the run's decoding and scores what comes back.

    Attributes:
        examples: of the latest evaluation, each prompt with its first response and the composite reward of that
            response; NaN if it has none. Empty for images.
    """

    def __init__(self, count: int = 1, limit: int | None = None, resamples: int = 2000, seed: int = 0) -> None:
        self.count = count
        self.limit = limit
        self.resamples = resamples
        self.seed = seed
        self.examples: list[tuple[Record, Response | str, float]] = []

    def evaluate(self, context: EvaluationContext) -> dict[str, float]:
        """Samples, scores and summarises.

        Returns:
            `reward` with `reward_low` and `reward_high`, its 95 % interval, and `reward/<name>` of every component (if
            the run has rewards): means over prompts of the mean over the prompt's scored responses; `kl` (if the run
            has a reference); `length`, mean steps; `finished`, the share that ended before the step limit.
        """
        prompts = context.records[: self.limit]
        groups = context.generate(prompts, self.count)
        rollouts = [Rollout.build(prompt, group) for prompt, group in zip(prompts, groups, strict=True)]
        metrics, rewards = self._measure_rewards(context, rollouts)
        if context.backend.has_reference:
            metrics["kl"] = _measure_kl(context, rollouts)
        self.examples = [
            (rollout.record, describe_output(rollout.responses[0].output) or rollout.responses[0].response, reward)
            for rollout, reward in zip(rollouts, rewards, strict=True)
            if not is_image(rollout.responses[0].output)
        ]
        return metrics | _measure_lengths(rollouts)

    def _measure_rewards(
        self, context: EvaluationContext, rollouts: Sequence[Rollout]
    ) -> tuple[dict[str, float], list[float]]:
        """Returns the reward metrics, and the composite reward of every prompt's first response."""
        names = context.backend.reward_names
        if not names:
            return {}, [nan] * len(rollouts)
        components = context.backend.score_rollouts(rollouts).cpu()  # [N, K]
        composite = context.backend.compose(components).reshape(-1, self.count)  # [P, count]
        of_prompts = composite.nanmean(dim=1)
        low, high = bootstrap_interval(of_prompts, resamples=self.resamples, seed=self.seed)
        means = components.reshape(-1, self.count, len(names)).nanmean(dim=1).nanmean(dim=0).tolist()  # [K]
        metrics = {"reward": float(of_prompts.nanmean()), "reward_low": low, "reward_high": high}
        metrics |= {f"reward/{name}": mean for name, mean in zip(names, means, strict=True)}
        return metrics, composite[:, 0].tolist()


def bootstrap_interval(
    values: Tensor, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Computes the percentile bootstrap interval of a mean.

    Args:
        values: [P], one independent value a prompt; NaN entries are left out.
        confidence: probability that the interval aims to cover, in (0, 1).
        resamples: how often P values are drawn with replacement.
        seed: equal seeds give equal intervals.

    Returns:
        the low and the high end. Both are the mean where the values do not differ (so also of a single value, which
        says nothing about its spread), and NaN where there are none.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    >>> bootstrap_interval(torch.tensor([2.0, 2.0, 2.0]))
    (2.0, 2.0)
    """
    if values.dim() != 1:
        raise ValueError(f"values: expected one dimension, got shape {tuple(values.shape)}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    kept = values[~values.isnan()].double().cpu()
    if not len(kept):
        return nan, nan
    generator = torch.Generator().manual_seed(seed)
    # One resample at a time: [resamples, P] indices of a large held-out set would not fit into memory.
    means = [kept[torch.randint(len(kept), (len(kept),), generator=generator)].mean() for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = torch.stack(means).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _measure_kl(context: EvaluationContext, rollouts: Sequence[Rollout]) -> float:
    """Estimates KL(policy, reference) in nats a response, from the policy's own samples.

    The mean over responses of the sum over steps of `policy_logps - reference_logps`, both at the run's temperature:
    unbiased for samples from the whole distribution, biased where a decoding cuts it (top-k, nucleus, greedy).
    """
    values = context.backend.quantities_of(rollouts, ("policy_logps", "reference_logps"))
    log_ratios = values["policy_logps"] - values["reference_logps"]  # [N, T]
    return float(torch.where(values["step_mask"], log_ratios, 0.0).sum(dim=1).mean())


def _measure_lengths(rollouts: Sequence[Rollout]) -> dict[str, float]:
    responses = [response for rollout in rollouts for response in rollout.responses]
    steps = sum(response.encoded.steps for response in responses)
    finished = sum(response.finished for response in responses)
    return {"length": steps / len(responses), "finished": finished / len(responses)}
