"""Kahneman-Tversky optimisation: labels on single responses, judged against a reference point.

The reference point is an estimate of KL(policy, reference) from responses under prompts that they do not answer. It is
one number for the global batch, so it is a quantity of its own (`kl_reference_point`), not part of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign import ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.shapes import check_shapes

if TYPE_CHECKING:
    from mmalign import StepContext

_PAPER = "KTO: Model Alignment as Prospect Theoretic Optimization (arXiv:2402.01306)"
_KTO = ObjectiveSpec(
    name="kto",
    summary="Prospect-theoretic value of single labelled responses.",
    loss=f"{__name__}:kto_loss",
    config=f"{__name__}:KTOConfig",
    per="response",
    over="labelled",
    equation="weight (1 - sigmoid(+-beta (p - r - kl_reference_point))), + desirable, - undesirable",
    paper=_PAPER,
)
SPECS = (
    _KTO,
    replace(
        _KTO,
        name="apo_zero_unpaired",
        summary="KTO with reference point 0: rewards of single labelled responses are judged by their sign.",
        loss=f"{__name__}:apo_zero_unpaired_loss",
        equation="weight (1 - sigmoid(+-beta (p - r))), + desirable, - undesirable",
        paper="Anchored Preference Optimization and Contrastive Revisions (arXiv:2408.06266)",
    ),
    QuantitySpec(
        name="kl_reference_point",
        summary="Estimate of KL(policy, reference) from responses under other prompts, at least 0.",
        compute=f"{__name__}:estimate_kl_reference_point",
        axes="",
        stage="step",
        needs=("reference_logps",),
        min_prompts=2,
        paper=_PAPER,
    ),
)


Utility = Literal["kahneman_tversky", "loss_averse", "risk_seeking"]
"""From a gain over the reference point to what it is worth."""
_UTILITIES: dict[Utility, Callable[[Tensor], Tensor]] = {
    "kahneman_tversky": torch.sigmoid,
    "loss_averse": logsigmoid,
    "risk_seeking": lambda gains: -logsigmoid(-gains),
}


class KTOConfig(Parameters):
    """Kahneman-Tversky optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward: the higher, the more risk-averse."""
    desirable_weight: float = Field(default=1.0, ge=0)
    """Weight of desirable responses; weight x count of both sorts should be in a ratio of 1 to 4/3."""
    undesirable_weight: float = Field(default=1.0, ge=0)
    """Weight of undesirable responses."""


def kto_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    labels: Tensor,
    kl_reference_point: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes one minus the value of every labelled response, weighted by its label.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        labels: [N], 1 desirable, 0 undesirable.
        kl_reference_point: scalar, nats, at least 0, no gradient.
        beta: inverse temperature of the implicit reward, positive.
        desirable_weight: weight of desirable responses, at least 0.
        undesirable_weight: weight of undesirable responses, at least 0.

    Returns:
        losses [N] and detached metrics: `rewards` [N] and `reward_accuracies` [N], 1 where the reward is on the side of
        the reference point that the label says.

    Source: arXiv:2402.01306, equations 7 and 8.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, labels=labels)
    check_shapes(0, kl_reference_point=kl_reference_point)
    rewards = beta * (policy_sequence_logps - reference_sequence_logps)
    point = beta * kl_reference_point.detach()
    return prospect_loss(rewards, point, labels, (desirable_weight, undesirable_weight), "kahneman_tversky")


def prospect_loss(
    rewards: Tensor, reference_point: Tensor, labels: Tensor, weights: tuple[float, float], utility: Utility
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes one minus the utility of every response, weighted by its label.

    Args:
        rewards: [N].
        reference_point: scalar, the reward that is neither a gain nor a loss.
        labels: [N], 1 desirable, 0 undesirable, of which a gain is a loss.
        weights: of desirable and of undesirable responses.
        utility: `kahneman_tversky`: sigmoid(g) of a gain g; `loss_averse`: logsigmoid(g); `risk_seeking`:
            -logsigmoid(-g).

    Returns:
        as `kto_loss`; the losses are within [0, weight] for `kahneman_tversky` only.
    """
    desirable = labels > 0.5
    gains = rewards - reference_point
    towards_label = torch.where(desirable, gains, -gains)
    weight = torch.full_like(gains, weights[1]).masked_fill(desirable, weights[0])
    agreement = (towards_label.detach().sign() + 1) / 2
    metrics = {"rewards": rewards.detach(), "reward_accuracies": agreement}
    return weight * (1 - _UTILITIES[utility](towards_label)), metrics


def apo_zero_unpaired_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    labels: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the KTO loss with reference point 0, so that rewards are judged by their sign.

    Arguments and results are those of `kto_loss`.

    Source: arXiv:2408.06266, for single responses as in the official code of KTO.
    """
    weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    point = policy_sequence_logps.new_zeros(())
    return kto_loss(policy_sequence_logps, reference_sequence_logps, labels, point, beta=beta, **weights)


def estimate_kl_reference_point(context: StepContext) -> Tensor:
    """Estimates KL(policy, reference) of the global batch: a detached scalar, nats.

    Every response is scored under the next prompt; the mean log-ratio, cut at 0, is the estimate. It is 0 where the
    batch has only one prompt.

    Source: arXiv:2402.01306, section 4.1.
    """
    policy, reference = context.mismatched()
    return context.mean(policy - reference).clamp(min=0).detach()
