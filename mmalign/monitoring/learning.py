"""Watches for steps that change nothing, or too much; each finding is said once, with its likely cause.

A run may go on after any of them, so none stops it: a group may be flat by chance, and some rewards are rare.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmalign.contract.batch import Batch

logger = logging.getLogger(__name__)

PATIENCE = 20
"""Steps in a row without a gradient before that is said while a run goes on; at its end fewer are enough."""

EXPLODED = 10.0
"""Nats a step, or multiples of what it was, by which a mean log-prob may fall: a uniform guess costs about 12."""


@dataclass
class LearningWatch:
    """What has been seen of a run's steps, in this process.

    Attributes:
        steps: seen so far.
        idle: of the latest steps, how many in a row had a gradient of exactly 0.
        start: mean log-prob of a scored step at the first sight, in nats; None before it.
        told: what has been said.
    """

    steps: int = 0
    idle: int = 0
    start: float | None = None
    told: set[str] = field(default_factory=set)

    def see_batch(self, batch: Batch, comparing: Mapping[str, int], *, whole: bool) -> None:
        """Looks at the batch of a step.

        Args:
            comparing: quantities that compare prompts of a global batch with each other, and how many they need.
            whole: this is the global batch, not a share of it.
        """
        pairs = batch.quantities["pairs"].tolist()
        if pairs and all(_is_equal(batch, *pair) for pair in pairs):
            text = (
                "the %d preference pairs of a batch have equal responses, e.g. of record %r: nothing is learned from "
            )
            self.tell("equal pairs", text + "them; see data.train", len(pairs), batch.records[0].id)
        prompts = {record.prompt for record in batch.records}
        for name, least in comparing.items() if whole else ():
            if len(prompts) < least:
                text = (
                    "the %d records of a batch have one prompt, but %r compares prompts with each other; see data.train"
                )
                self.tell(f"one prompt {name}", text, len(batch.records), name)

    def see_logps(self, values: Mapping[str, Tensor], step: int, rate: float) -> None:
        """Looks at the policy's log-probs of a micro-batch."""
        if "policy_logps" not in values or not values["step_mask"].any():
            return
        mean = float(values["policy_logps"].detach()[values["step_mask"]].mean())
        if self.start is None:
            self.start = mean
        elif self.start - mean > EXPLODED * max(1.0, abs(self.start)):
            text = (
                "step %d: the policy's log-probs of its batch have fallen from %.3g to %.3g nats a step; likely cause: "
                "updates that are too large: lower train.learning_rate, now %.3g, or set train.max_grad_norm"
            )
            self.tell("exploded", text, step + 1, self.start, mean, rate)

    def see_step(self, metrics: Mapping[str, float], rewards: Sequence[str]) -> None:
        """Looks at the metrics of a step.

        Args:
            rewards: names of the run's rewards.
        """
        self.steps += 1
        self.idle = self.idle + 1 if metrics["grad_norm"] == 0 else 0
        if metrics.get("reward/unscored") == 1:
            text = "no response of a round has a reward, so nothing is learned from it; see the rewards: %s"
            self.tell("unscored", text, ", ".join(rewards))
        if metrics["grad_norm"] == 0 and metrics.get("flat_groups") == 1:
            text = (
                "the responses to every prompt of a round got the same reward, so their advantages are 0 and nothing "
                "is learned; the metric `flat_groups` goes on counting. See collector.group_size and the rewards"
            )
            self.tell("flat", text)
        if self.idle == PATIENCE:
            self._say_idle()

    def finish(self) -> None:
        """Says at the end of a run that no step has changed anything."""
        if self.steps and self.idle == self.steps:
            self._say_idle()

    def _say_idle(self) -> None:
        text = (
            "the gradient was exactly 0 in the last %d steps: nothing was learned; likely causes: equal responses in "
            "pairs, equal or no rewards, an objective or weight of 0, or log-ratios that are 0 as one update a round"
        )
        self.tell("idle", text, self.idle)

    def tell(self, what: str, text: str, *values: object) -> None:
        """Logs a warning, once for each `what`."""
        if what not in self.told:
            self.told.add(what)
            logger.warning(text, *values)


def _is_equal(batch: Batch, one: int, other: int) -> bool:
    first, second = batch.responses[one].tensors, batch.responses[other].tensors
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
