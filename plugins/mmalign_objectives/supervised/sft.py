"""Supervised fine-tuning: maximum likelihood of the target responses."""

from __future__ import annotations

from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.aggregation import StepParameters
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="sft",
        summary="Maximum likelihood of the target responses.",
        loss=f"{__name__}:sft_loss",
        config=f"{__name__}:SFTConfig",
        per="step",
        over="targets",
        equation="-policy_logps",
    ),
)


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
