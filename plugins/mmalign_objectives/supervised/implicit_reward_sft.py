"""Supervised fine-tuning as implicit reward learning: other divergences keep the pull to the reference.

Experimental: the functions of the reward are those of the paper up to constants that could not be checked.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.divergences import alpha_rewards
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="implicit_reward_sft",
        summary="Experimental: fine-tuning as implicit reward learning by Pearson chi-squared or Hellinger.",
        loss=f"{__name__}:implicit_reward_sft_loss",
        config=f"{__name__}:ImplicitRewardSFTConfig",
        per="response",
        over="targets",
        equation="-r (total_variation), -r + r^2 / 4 (pearson) or exp(-r) (hellinger), r = beta (p - ref)",
        paper="Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections (arXiv:2507.00018)",
    ),
)


MatchedBy = Literal["total_variation", "pearson", "hellinger"]


class ImplicitRewardSFTConfig(Parameters):
    """Supervised fine-tuning as implicit reward learning."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward of the demonstrations."""
    divergence: MatchedBy = "pearson"
    """total_variation (plain fine-tuning), pearson (stops at a reward of 2) or hellinger (fades out)."""


def implicit_reward_sft_loss(
    policy_sequence_logps: Tensor, reference_sequence_logps: Tensor, *, beta: float, divergence: MatchedBy
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes phi of the implicit reward of every demonstration: -r, -r + r^2 / 4 or exp(-r).

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        beta: inverse temperature of the implicit reward, positive.
        divergence: which phi.

    Returns:
        losses [N] and the detached metric `rewards` [N].

    Source: arXiv:2507.00018, SFT under other f-divergences.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps)
    rewards = beta * (policy_sequence_logps - reference_sequence_logps)
    metrics = {"rewards": rewards.detach()}
    if divergence == "total_variation":
        return -rewards, metrics
    if divergence == "pearson":
        return -rewards + rewards**2 / 4, metrics
    return 1 - alpha_rewards(rewards, 1.0), metrics
