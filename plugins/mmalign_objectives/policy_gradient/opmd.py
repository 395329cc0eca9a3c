"""Online policy mirror descent: the score function with a squared log-ratio to the policy that sampled, unclipped.

Rewards less their group mean, weighted by log-probs without importance ratios, are a gradient whoever sampled; what
keeps an update near the sampler is the penalty.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.aggregation import StepParameters
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="opmd",
        summary="Score-function policy gradient with a squared log-ratio to the sampler, a mean over steps.",
        loss=f"{__name__}:opmd_loss",
        config=f"{__name__}:OPMDConfig",
        per="step",
        over="sampled",
        # The score function is that of a probability; a bound has another gradient.
        log_prob_kinds=("exact",),
        equation="-advantages policy_logps + tau (policy_logps - behaviour_logps)^2",
        paper="Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm (arXiv:2509.24203)",
    ),
)


class OPMDConfig(StepParameters):
    """Online policy mirror descent."""

    tau: float = Field(default=0.1, ge=0)
    """Weight of the squared log-ratio; 0 leaves the score function, which nothing keeps near the sampler."""


def opmd_loss(
    policy_logps: Tensor, behaviour_logps: Tensor, advantages: Tensor, step_mask: Tensor, *, tau: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes minus the advantage times the log-prob of every step, plus tau times its squared log-ratio.

    Args:
        policy_logps: [N, T], nats.
        behaviour_logps: [N, T], nats, of the policy that sampled; no gradient.
        advantages: [N] or [N, T], no gradient; as published, rewards less their group mean.
        step_mask: [N, T] bool; other steps get loss 0.
        tau: weight of the squared log-ratio, at least 0.

    Returns:
        losses [N, T], not reduced, and the detached metric `log_ratio` [N, T], nats.

    Source: arXiv:2509.24203, the per-step form of its authors' code, which has no half before the square.
    """
    per_step = advantages[:, None].expand_as(policy_logps) if advantages.dim() == 1 else advantages  # [N, T]
    check_shapes(2, policy_logps=policy_logps, behaviour_logps=behaviour_logps, advantages=per_step, mask=step_mask)
    logps = torch.where(step_mask, policy_logps, 0)
    log_ratio = logps - torch.where(step_mask, behaviour_logps.detach(), 0)
    losses = -torch.where(step_mask, per_step.detach(), 0) * logps + tau * log_ratio.square()
    return losses, {"log_ratio": log_ratio.detach()}
