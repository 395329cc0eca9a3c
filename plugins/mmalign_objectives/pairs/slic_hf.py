"""Sequence likelihood calibration: a hinge on raw log-probs with a likelihood term as the anchor."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import hinge
from mmalign_objectives.support.rewards import reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="slic_hf",
        aliases=("slic",),
        summary="Hinge loss of the log-prob margin plus the likelihood of the chosen response.",
        loss=f"{__name__}:slic_hf_loss",
        config=f"{__name__}:SLiCHFConfig",
        per="pair",
        equation="max(0, delta - pc + pr) - nll_weight pc",
        paper="SLiC-HF: Sequence Likelihood Calibration with Human Feedback (arXiv:2305.10425)",
    ),
)


class SLiCHFConfig(Parameters):
    """Sequence likelihood calibration."""

    delta: float = Field(default=1.0, ge=0)
    """Margin, in nats of the whole response, that chosen must have over rejected."""
    nll_weight: float = Field(default=0.1, ge=0)
    """Weight of the negative log-likelihood of the chosen response."""


def slic_hf_loss(
    policy_chosen_sequence_logps: Tensor, policy_rejected_sequence_logps: Tensor, *, delta: float, nll_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the hinge of the log-prob margin of every pair plus a likelihood term.

    Args:
        policy_chosen_sequence_logps: [M], nats, summed over steps.
        policy_rejected_sequence_logps: [M], nats, summed over steps.
        delta: margin that is wanted, nats, at least 0.
        nll_weight: weight of the likelihood term, at least 0.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward is the log-prob.

    Source: arXiv:2305.10425, equation 1.
    Differs: the likelihood term is that of the chosen response, as in HALOs, not of a separate supervised target.
    """
    check_shapes(1, policy_chosen=policy_chosen_sequence_logps, policy_rejected=policy_rejected_sequence_logps)
    margins = policy_chosen_sequence_logps - policy_rejected_sequence_logps
    losses = hinge(margins, delta) - nll_weight * policy_chosen_sequence_logps
    return losses, reward_metrics(policy_chosen_sequence_logps, policy_rejected_sequence_logps)
