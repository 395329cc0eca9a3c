"""The score-function policy gradient: log-probs of sampled steps, weighted by advantages, without importance ratios.

It is right for one update a round, with the policy that sampled; DDPO's score-function form is this on the steps of a
diffusion sampler.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.aggregation import Aggregation, StepParameters
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="ddpo_sf",
        summary="Score-function policy gradient, for one update a round; a sum over the steps of a response.",
        loss=f"{__name__}:score_function_loss",
        config=f"{__name__}:ScoreFunctionConfig",
        per="step",
        aggregation="sequence_sum",
        # The score function is that of a probability; a bound has another gradient.
        log_prob_kinds=("exact",),
        equation="-advantages policy_logps",
        paper="Training Diffusion Models with Reinforcement Learning (arXiv:2305.13301)",
    ),
)


class ScoreFunctionConfig(StepParameters):
    """Score-function policy gradient."""

    aggregation: Aggregation = "sequence_sum"
    """Mean over responses of the sum over their steps."""


def score_function_loss(
    policy_logps: Tensor, advantages: Tensor, step_mask: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes minus the advantage times the log-prob of every step.

    Args:
        policy_logps: [N, T], nats.
        advantages: [N] or [N, T], no gradient.
        step_mask: [N, T] bool; other steps get loss 0.

    Returns:
        losses [N, T], not reduced, and no metrics. The value of the loss means nothing; its gradient does.

    Source: arXiv:2305.13301, the score-function estimator of DDPO.
    """
    per_step = advantages[:, None].expand_as(policy_logps) if advantages.dim() == 1 else advantages  # [N, T]
    check_shapes(2, policy_logps=policy_logps, advantages=per_step, step_mask=step_mask)
    return -torch.where(step_mask, per_step.detach(), 0) * torch.where(step_mask, policy_logps, 0), {}
