"""Provably robust DPO: its expectation over labels that are flipped at a known rate is the DPO loss of true labels."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import unbiased_logistic
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="robust_dpo",
        summary="DPO whose expectation over labels flipped at a known rate is that of true labels.",
        loss=f"{__name__}:robust_dpo_loss",
        config=f"{__name__}:RobustDPOConfig",
        per="pair",
        equation="((eps - 1) logsigmoid(m) + eps logsigmoid(-m)) / (1 - 2 eps), m = beta ((pc - rc) - (pr - rr))",
        paper="Provably Robust DPO: Aligning Language Models with Noisy Feedback (arXiv:2403.00409)",
    ),
)


class RobustDPOConfig(Parameters):
    """Provably robust DPO."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the closer the policy stays to the reference."""
    flip_rate: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of the preference labels that are wrong; the variance grows with 1 / (1 - 2 flip_rate)."""


def robust_dpo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    flip_rate: float,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the unbiased logistic loss of the implicit-reward margin of every pair; it may be negative.

    Args: the log-probs are those of `dpo_loss`.
        flip_rate: probability that a label is flipped, in [0, 0.5).
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [M], not bounded below, and detached metrics [M].

    Source: arXiv:2403.00409, the loss of rDPO.
    """
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_rewards, rejected_rewards = implicit_rewards(policy, reference, beta)
    losses = unbiased_logistic(chosen_rewards - rejected_rewards, flip_rate)
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
