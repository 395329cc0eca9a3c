"""The rewards that a loss on pairs implies, and the metrics that all such losses share."""

from __future__ import annotations

from torch import Tensor

from mmalign_objectives.support.shapes import check_shapes

Pair = tuple[Tensor, Tensor]


def implicit_rewards(policy: Pair, reference: Pair, beta: float) -> Pair:
    """Computes beta * log(policy / reference) of the chosen and the rejected response of every pair.

    Args:
        policy: log-probs of (chosen, rejected), [M] each, nats.
        reference: likewise, without gradient.
        beta: inverse temperature of the implicit reward.

    Source: arXiv:2305.18290, equation 5 without its prompt-dependent term.
    """
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    check_shapes(1, **dict(zip(names, (*policy, *reference), strict=True)))
    return beta * (policy[0] - reference[0]), beta * (policy[1] - reference[1])


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
