"""Self-play: stored responses against samples of an earlier policy, as preference pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mmalign import Collector, DataError, Generate, Label, Parameters, Record, Rollout


class SelfPlayConfig(Parameters):
    """Stored responses against samples."""

    group_size: int = Field(default=1, ge=1)
    """Samples to every prompt; each is a pair with every stored response."""
    network: Literal["reference", "policy"] = "reference"
    """Which network is sampled; the section `reference` says what the reference is, and how it moves."""


class SelfPlayCollector(Collector):
    """Makes pairs of the stored responses that supervised training would imitate, as chosen, and of samples.

    Other stored responses and all feedback of the data are left out.

    Source: SPIN (arXiv:2401.01335), with `reference: {strategy: sync}`; SePPO (arXiv:2410.05255), with `past`.
    """

    def __init__(self, group_size: int = 1, network: Literal["reference", "policy"] = "reference") -> None:
        self.group_size = group_size
        self.network = network

    def collect(self, prompts: Sequence[Record], generate: Generate) -> list[Rollout]:
        """Returns one rollout for each of `prompts`: stored responses first, samples behind them.

        Raises:
            DataError: a prompt has no stored response.
        """
        kept = [_keep_targets(record) for record in prompts]
        groups = generate(kept, self.group_size)
        return [_pair(record, Rollout.extend(record, group)) for record, group in zip(kept, groups, strict=True)]


def _keep_targets(record: Record) -> Record:
    kept = [response for response, good in zip(record.responses, record.targets(), strict=True) if good]
    if not kept:
        raise DataError(f"record {record.id!r}: no stored response to set against samples; give it a chosen one")
    return record.with_responses(kept)


def _pair(record: Record, rollout: Rollout) -> Rollout:
    labels = tuple(
        Label(kind="pair", order=((stored.rid,), (sampled.response.rid,)), annotator="rule:self_play")
        for stored in record.responses
        for sampled in rollout.responses
    )
    return Rollout(rollout.record.model_copy(update={"labels": labels}), rollout.responses)
