"""Metrics that all losses on pairs share, in terms of the rewards that the loss implies."""

from __future__ import annotations

from torch import Tensor


def reward_metrics(chosen_rewards: Tensor, rejected_rewards: Tensor) -> dict[str, Tensor]:
    """Describes how a batch of pairs is ranked.

    Args:
        chosen_rewards: [M], what the loss takes for the reward of the chosen responses.
        rejected_rewards: [M].

    Returns:
        detached [M] tensors: both rewards, `reward_margins`, and `reward_accuracies`: 1 where chosen has the higher
        reward, 0 where rejected has, 0.5 for a tie, so that an untrained policy is at 0.5.
    """
    chosen, rejected = chosen_rewards.detach(), rejected_rewards.detach()
    margins = chosen - rejected
    return {
        "chosen_rewards": chosen,
        "rejected_rewards": rejected,
        "reward_margins": margins,
        "reward_accuracies": (margins.sign() + 1) / 2,
    }
