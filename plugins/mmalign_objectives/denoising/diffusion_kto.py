"""Diffusion-KTO: KTO on how much better than the reference the policy denoises, with a choice of utilities.

The reference point is the mean of that over the labelled images of the global batch, so it is a quantity of its own
(`batch_reference_point`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, QuantitySpec
from mmalign_objectives.support.denoising import denoising_errors
from mmalign_objectives.support.shapes import check_shapes
from mmalign_objectives.unpaired.kto import KTOConfig, Utility, prospect_loss

if TYPE_CHECKING:
    from mmalign import StepContext

_PAPER = "Aligning Diffusion Models by Optimizing Human Utility (arXiv:2404.04465)"
SPECS = (
    ObjectiveSpec(
        name="diffusion_kto",
        summary="KTO on denoising errors with a choice of utilities and the batch mean as reference point.",
        loss=f"{__name__}:diffusion_kto_loss",
        config=f"{__name__}:DiffusionKTOConfig",
        per="response",
        over="labelled",
        # It takes log-probs for denoising errors.
        log_prob_kinds=("surrogate",),
        equation="weight (1 - U(+-2 beta (p - r - batch_reference_point))), + desirable, - undesirable",
        paper=_PAPER,
    ),
    QuantitySpec(
        name="batch_reference_point",
        summary="Mean log-ratio of policy and reference over the labelled responses of a global batch, at least 0.",
        compute=f"{__name__}:compute_batch_reference_point",
        axes="",
        stage="step",
        paper=_PAPER,
    ),
)


class DiffusionKTOConfig(KTOConfig):
    """Diffusion-KTO."""

    beta: float = Field(default=5000.0, gt=0)
    """Scale of the implicit reward, a difference of mean squared denoising errors, as in the paper; its code: 1000."""
    utility: Utility = "kahneman_tversky"
    """kahneman_tversky: sigmoid of a gain; loss_averse: concave, logsigmoid; risk_seeking: convex."""


def diffusion_kto_loss(  # noqa: PLR0913
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    labels: Tensor,
    batch_reference_point: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
    utility: Utility,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes one minus the utility of every labelled response, weighted by its label.

    Args:
        policy_sequence_logps: [N], minus half the denoising error.
        reference_sequence_logps: [N], likewise, no gradient.
        labels: [N], 1 desirable, 0 undesirable.
        batch_reference_point: scalar, a difference of such log-probs, at least 0, no gradient.
        beta: scale of the difference of denoising errors, which is twice that of the log-probs; positive.
        desirable_weight: weight of desirable responses, at least 0.
        undesirable_weight: weight of undesirable responses, at least 0.
        utility: see `prospect_loss`.

    Returns:
        losses [N] and detached metrics [N]: those of `kto_loss`.

    Source: arXiv:2404.04465, with the reference point of the official code.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, labels=labels)
    check_shapes(0, batch_reference_point=batch_reference_point)
    rewards = beta * (denoising_errors(reference_sequence_logps) - denoising_errors(policy_sequence_logps))
    point = 2 * beta * batch_reference_point.detach()
    return prospect_loss(rewards, point, labels, (desirable_weight, undesirable_weight), utility)


def compute_batch_reference_point(
    context: StepContext, current_sequence_logps: Tensor, reference_sequence_logps: Tensor, labelled: Tensor
) -> Tensor:
    """Averages log(policy / reference) over the labelled responses of the global batch: a detached scalar, at least 0.

    Source: arXiv:2404.04465, the official code.
    """
    log_ratios = current_sequence_logps - reference_sequence_logps
    return context.mean(log_ratios[labelled]).clamp(min=0).detach()
