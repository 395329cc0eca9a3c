"""Group sampling: G independent responses to every prompt."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from mmalign import Collector, Generate, Generated, Parameters, Record, Rollout


class GroupConfig(Parameters):
    """Group sampling."""

    group_size: int = Field(default=8, ge=1)
    """Responses to each prompt; estimators that compare within a group need at least 2."""


class GroupCollector(Collector):
    """Samples `group_size` responses to every prompt, once each.

    Attributes:
        collected: responses sampled so far.
        unfinished: how many of them the step limit cut off.
    """

    def __init__(self, group_size: int = 8) -> None:
        self.group_size = group_size
        self.independent_group = group_size
        self.collected = 0
        self.unfinished = 0

    def collect(self, prompts: Sequence[Record], generate: Generate) -> list[Rollout]:
        """Returns one rollout of `group_size` responses for each of `prompts`, in order."""
        groups = generate(prompts, self.group_size)
        rollouts = [self._join(record, group) for record, group in zip(prompts, groups, strict=True)]
        finished = [one.finished for rollout in rollouts for one in rollout.responses]
        self.collected += len(finished)
        self.unfinished += finished.count(False)
        return rollouts

    def _join(self, record: Record, group: Sequence[Generated]) -> Rollout:
        return Rollout.build(record, group)
