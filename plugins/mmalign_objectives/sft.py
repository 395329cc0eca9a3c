"""Supervised fine-tuning: maximum likelihood of the target responses."""

from __future__ import annotations

from torch import Tensor

from mmalign_objectives.aggregation import StepParameters
from mmalign_objectives.shapes import check_shapes


class SFTConfig(StepParameters):
    """Supervised fine-tuning; `step_mean` gives every step the same weight, `sequence_mean` every response."""


def sft_loss(policy_logps: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative log-likelihood of every step.

    Args:
        policy_logps: [N, T], nats.

    Returns:
        losses [N, T], not reduced, and no metrics.
    """
    check_shapes(2, policy_logps=policy_logps)
    return -policy_logps, {}
