"""A plugin in one file: a reward and an objective. A configuration names it with `plugins: [examples/vowels.py]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmalign import ObjectiveSpec, Reward, RewardSpec, Sample, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class Vowels(Reward):
    """Scores the share of vowels among the characters of a response, 0 to 1."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Returns one share a sample; 0 for an empty response."""
        return [sum(map(sample.output.lower().count, "aeiou")) / max(1, len(sample.output)) for sample in samples]


def reinforce_loss(policy_sequence_logps: Tensor, advantages: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes -advantage * log-prob of every response.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        advantages: [N], no gradient.

    Returns:
        losses [N], not reduced, and no metrics.

    Source: Williams, Simple statistical gradient-following algorithms (1992), equation 4.
    """
    return -advantages * policy_sequence_logps, {}


@hookimpl
def register_rewards() -> list[RewardSpec]:
    """Announces the reward."""
    return [RewardSpec(name="vowels", summary="The share of vowels in a response.", target="vowels:Vowels")]


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    """Announces the objective."""
    return [
        ObjectiveSpec(
            name="reinforce",
            summary="The plain policy gradient, for one update a round.",
            loss="vowels:reinforce_loss",
            per="response",
            equation="-advantage * log p(response)",
        )
    ]
