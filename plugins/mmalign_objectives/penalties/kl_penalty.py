"""KL to the reference as a loss of its own, to be added to any other.

The three estimators agree in expectation or to second order as *values*; as *losses* they differ. On samples of the
policy, k2 has the gradient of KL(policy, reference); k3 has, in expectation, that of KL(reference, policy); k1 has an
expected gradient of zero and only serves as a metric.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.aggregation import StepParameters
from mmalign_objectives.support.shapes import check_shapes

_KL_PENALTY = ObjectiveSpec(
    name="kl_penalty",
    summary="KL to the reference, to be added to another objective.",
    loss=f"{__name__}:kl_penalty_loss",
    config=f"{__name__}:KLPenaltyConfig",
    names={"anchor_logps": "reference_logps"},
    per="step",
    equation="k1: d; k2: d^2 / 2; k3: exp(-d) + d - 1; d = policy_logps - reference_logps",
    paper="Approximating KL Divergence (Schulman, 2020)",
)
SPECS = (
    _KL_PENALTY,
    replace(
        _KL_PENALTY,
        name="behaviour_kl_penalty",
        summary="KL to the policy that sampled, a trust region, to be added to another objective.",
        names={"anchor_logps": "behaviour_logps"},
        over="sampled",
        equation="k1: d; k2: d^2 / 2; k3: exp(-d) + d - 1; d = policy_logps - behaviour_logps",
    ),
)


KLEstimator = Literal["k1", "k2", "k3"]


class KLPenaltyConfig(StepParameters):
    """KL to the reference."""

    estimator: KLEstimator = Field(default="k3")
    """`k3`: never negative, as in GRPO. `k2`: unbiased gradient. `k1`: unbiased value, no gradient in expectation."""


def estimate_kl(policy_logps: Tensor, reference_logps: Tensor, *, estimator: KLEstimator) -> Tensor:
    """Estimates the KL of the policy from the reference at every step, nats, any equal shapes.

    Source: http://joschu.net/blog/kl-approx.html; k3 in GRPO is arXiv:2402.03300, equation 4.
    """
    log_ratio = policy_logps - reference_logps
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio**2 / 2
    return torch.expm1(-log_ratio) + log_ratio


def kl_penalty_loss(
    policy_logps: Tensor, anchor_logps: Tensor, step_mask: Tensor, *, estimator: KLEstimator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes an estimate of KL(policy, anchor) at every step.

    Args:
        policy_logps: [N, T], nats.
        anchor_logps: [N, T], nats, no gradient: of the reference, or of the policy that sampled.
        step_mask: [N, T] bool; other steps get KL 0.
        estimator: see `KLPenaltyConfig`.

    Returns:
        losses [N, T] and the detached metric `kl` [N, T].
    """
    check_shapes(2, policy_logps=policy_logps, anchor_logps=anchor_logps, step_mask=step_mask)
    policy = torch.where(step_mask, policy_logps, 0)
    anchor = torch.where(step_mask, anchor_logps.detach(), 0)
    kl = estimate_kl(policy, anchor, estimator=estimator)
    return kl, {"kl": kl.detach()}
