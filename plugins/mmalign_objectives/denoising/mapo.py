"""MaPO: imitation of the chosen image plus a margin between bounded links of both denoising errors; no reference.

Paper and official code differ in the link and its scales; both are settings of this one loss. The defaults are those
of the code. The paper's form with its beta is `preference_weight` 1 / beta, `margin_scale` 1, `error_scale` 1 and
`link_power` beta.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.denoising import denoising_errors
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="mapo",
        summary="Denoises chosen and prefers it by a margin of bounded links of both errors, without a reference.",
        loss=f"{__name__}:mapo_loss",
        config=f"{__name__}:MaPOConfig",
        per="pair",
        # It takes log-probs for denoising errors.
        log_prob_kinds=("surrogate",),
        equation=(
            "e_c - preference_weight logsigmoid(margin_scale (phi(e_c) - phi(e_r))), phi(e) = (x / (exp(x) - "
            "1))^link_power, x = error_scale e, e = -2 p"
        ),
        paper=(
            "Margin-aware Preference Optimization for Aligning Diffusion Models without Reference (arXiv:2406.06424)"
        ),
    ),
)


_SERIES_BELOW = 0.1
"""Scaled errors below this are linked by a series, whose first term left out is then 1e-15 of 1."""


class MaPOConfig(Parameters):
    """Margin-aware preference optimisation."""

    preference_weight: float = Field(default=0.1, ge=0)
    """Weight of the preference term; the likelihood term has weight 1."""
    margin_scale: float = Field(default=1000.0, gt=0)
    """Multiplies the margin of links, as the number of timesteps does in the code; 1 in the paper."""
    error_scale: float = Field(default=0.5, gt=0)
    """Multiplies a denoising error before it is linked; 1 in the paper."""
    link_power: float = Field(default=1.0, gt=0)
    """Power of the link; beta in the paper."""


def mapo_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    *,
    preference_weight: float,
    margin_scale: float,
    error_scale: float,
    link_power: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the denoising error of chosen plus the weighted logistic loss of the margin of both links.

    Args:
        policy_chosen_sequence_logps: [M], minus half the denoising error.
        policy_rejected_sequence_logps: [M].
        preference_weight: weight of the preference term, at least 0.
        margin_scale: multiplies the margin of links, positive.
        error_scale: multiplies an error before it is linked, positive.
        link_power: power of the link, positive.

    Returns:
        losses [M] and detached metrics [M]: `chosen_errors`, `rejected_errors`, `reward_margins` (of the links,
        without their scale) and `reward_accuracies`, 1 where chosen has the lower error, 0.5 for a tie.

    Source: arXiv:2406.06424, the loss of MaPO, and its official code.
    """
    check_shapes(1, policy_chosen=policy_chosen_sequence_logps, policy_rejected=policy_rejected_sequence_logps)
    chosen, rejected = denoising_errors(policy_chosen_sequence_logps), denoising_errors(policy_rejected_sequence_logps)
    margins = link_errors(chosen, scale=error_scale, power=link_power) - link_errors(
        rejected, scale=error_scale, power=link_power
    )
    losses = chosen + preference_weight * logistic(margin_scale * margins)
    metrics = {"chosen_errors": chosen, "rejected_errors": rejected, "reward_margins": margins}
    accuracies = ((rejected - chosen).sign() + 1) / 2
    return losses, {name: value.detach() for name, value in {**metrics, "reward_accuracies": accuracies}.items()}


def link_errors(errors: Tensor, *, scale: float, power: float) -> Tensor:
    """Maps errors, any shape, to (x / (exp(x) - 1))^power, x = scale * error: 1 at 0 and falling to 0.

    >>> link_errors(torch.tensor([0.0, 1e4]), scale=1.0, power=2.0)
    tensor([1., 0.])
    """
    return (power * _log_link(scale * errors)).exp()


def _log_link(x: Tensor) -> Tensor:
    """Computes log(x / (exp(x) - 1)) without overflow, and without 0 / 0 in value or gradient."""
    near, size = x.abs() < _SERIES_BELOW, x.abs()
    series = -x / 2 - x**2 / 24 + x**4 / 2880 - x**6 / 181440
    far = torch.where(near, 1, size)
    # The link of -x is that of x times exp(x).
    closed = far.log() - far - (-(-far).expm1()).log() + (-x).relu()
    return torch.where(near, series, closed)
