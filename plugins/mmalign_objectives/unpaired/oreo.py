"""Offline reasoning optimisation: soft Bellman consistency of policy and value head on responses with an outcome.

The value of a state is the outcome still to come less what the policy will pay in KL; the policy learns the log-ratio
that explains how values change. Each of both sees the other, and its own future, without gradient. The KL term of the
paper, over the whole vocabulary, is an objective of its own: `reverse_kl`, added to this one with a weight.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.aggregation import Aggregation, StepParameters
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="oreo",
        summary="Soft Bellman consistency of policy and value head on responses with an outcome.",
        loss=f"{__name__}:oreo_loss",
        config=f"{__name__}:OREOConfig",
        per="step",
        over="labelled",
        aggregation="sequence_mean",
        # Values and log-ratios add up to the outcome only if the log-ratios are those of probabilities.
        log_prob_kinds=("exact",),
        equation="(sg V_t - R + beta d_t + sg G_t+1)^2 + value_weight (V_t - R + sg G_t)^2, G_t = beta sum_i>=t d",
        paper="Offline Reinforcement Learning for LLM Multi-Step Reasoning (arXiv:2412.16145)",
    ),
)


class OREOConfig(StepParameters):
    """Offline reasoning optimisation."""

    beta: float = Field(default=0.03, gt=0)
    """Cost of the KL to the reference, in units of the outcome."""
    value_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of the value head."""
    aggregation: Aggregation = "sequence_mean"
    """Mean over responses of the mean over their steps."""


def oreo_loss(
    policy_logps: Tensor,
    reference_logps: Tensor,
    values: Tensor,
    labels: Tensor,
    step_mask: Tensor,
    *,
    beta: float,
    value_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the squared residuals of policy and value at every step.

    Args:
        policy_logps: [N, T], nats.
        reference_logps: [N, T], nats, no gradient.
        values: [N, T], the value head's at the state before each step.
        labels: [N], outcome of the whole response: 1 right, 0 wrong.
        step_mask: [N, T] bool; other steps get loss 0.
        beta: cost of the KL to the reference, positive.
        value_weight: weight of the value's residual, at least 0.

    Returns:
        losses [N, T], and detached metrics [N, T]: `values`, and `policy_losses` and `value_losses` without weights.

    Source: arXiv:2412.16145, the losses of value and policy at the level of steps (tokens of a text).
    Differs: the KL over the vocabulary is left to the objective `reverse_kl`.
    """
    check_shapes(2, policy=policy_logps, reference=reference_logps, values=values, step_mask=step_mask)
    costs = beta * torch.where(step_mask, policy_logps - reference_logps, 0)  # [N, T]
    known = torch.where(step_mask, values, 0)
    ahead = _sum_from_here(costs.detach())
    outcomes = labels.to(costs)[:, None]
    value_losses = torch.where(step_mask, (known - outcomes + ahead) ** 2, 0)
    # ahead - cost is the cost after this step; only the log-ratio of the step itself carries gradient.
    residuals = known.detach() - outcomes + costs + (ahead - costs.detach())
    policy_losses = torch.where(step_mask, residuals**2, 0)
    metrics = {"values": known.detach(), "policy_losses": policy_losses.detach(), "value_losses": value_losses.detach()}
    return policy_losses + value_weight * value_losses, metrics


def _sum_from_here(costs: Tensor) -> Tensor:
    """Adds up the costs of this step and all later ones: [N, T]."""
    return costs.flip(1).cumsum(dim=1).flip(1)
