"""Binary classifier optimisation: the implicit reward is the logit of a classifier of single labelled responses.

The logit is shifted by the mean reward, a running mean over all steps so far, which tightens the bound on the DPO loss.
Where desirable and undesirable responses answer prompts of different sorts, the undesirable ones are weighted by how
likely a desirable response to such a prompt is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign import ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.shapes import check_shapes

if TYPE_CHECKING:
    from mmalign import Batch, StepContext

_PAPER = "Binary Classifier Optimization for Large Language Model Alignment (arXiv:2404.04656)"
SPECS = (
    ObjectiveSpec(
        name="bco",
        summary="Classifies single labelled responses by their implicit reward, less its running mean.",
        loss=f"{__name__}:bco_loss",
        config=f"{__name__}:BCOConfig",
        per="response",
        over="labelled",
        equation="-weight logsigmoid(+-beta (p - r - mean_log_ratio)), + desirable, - undesirable",
        paper=_PAPER,
    ),
    QuantitySpec(
        name="mean_log_ratio",
        summary="Mean log-ratio of policy and reference over the labelled responses of all steps so far.",
        compute=f"{__name__}:compute_mean_log_ratio",
        axes="",
        stage="step",
        paper=_PAPER,
    ),
    QuantitySpec(
        name="density_ratios",
        summary="Odds that a response to the prompt is desirable, from `desirability` in `meta`; 1 if unknown.",
        compute=f"{__name__}:compute_density_ratios",
        axes="N",
        stage="data",
        paper=_PAPER,
    ),
)


MIN_DENSITY_RATIO, MAX_DENSITY_RATIO = 0.5, 10.0
"""Limits of the weight of an undesirable response."""


class BCOConfig(Parameters):
    """Binary classifier optimisation."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward."""


def bco_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    labels: Tensor,
    mean_log_ratio: Tensor,
    density_ratios: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the cross-entropy of every label with sigmoid(reward - mean reward).

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        labels: [N], 1 desirable, 0 undesirable.
        mean_log_ratio: scalar, nats, the running mean over steps and responses, no gradient.
        density_ratios: [N], weight of the response if it is undesirable, no gradient; desirable ones have weight 1.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [N] and detached metrics [N]: `rewards` and `reward_accuracies`, 1 where the reward is on the side of the
        mean that the label says.

    Source: arXiv:2404.04656, the loss with reward shift and, for `density_ratios`, underlying distribution matching.
    Differs: the shift is the mean over all responses, as in TRL; the paper averages the means of both labels.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, labels=labels)
    check_shapes(1, labels=labels, density_ratios=density_ratios)
    check_shapes(0, mean_log_ratio=mean_log_ratio)
    desirable = labels > 0.5
    rewards = beta * (policy_sequence_logps - reference_sequence_logps)
    logits = rewards - beta * mean_log_ratio.detach()
    towards_label = torch.where(desirable, logits, -logits)
    losses = -torch.where(desirable, 1, density_ratios) * logsigmoid(towards_label)
    return losses, {"rewards": rewards.detach(), "reward_accuracies": (towards_label.detach().sign() + 1) / 2}


def compute_mean_log_ratio(
    context: StepContext, current_sequence_logps: Tensor, reference_sequence_logps: Tensor, labelled: Tensor
) -> Tensor:
    """Averages log(policy / reference) over the labelled responses of all steps so far: a scalar, nats."""
    log_ratios = current_sequence_logps - reference_sequence_logps
    return context.running_mean("mean_log_ratio", log_ratios[labelled])


def compute_density_ratios(batch: Batch) -> Tensor:
    """Computes how much likelier each prompt is among desirable responses than among undesirable ones: [N].

    That is p / (1 - p) within limits, for a probability p that a response to the prompt is desirable: the key
    `desirability` of the record's `meta`, from any classifier of prompts. 1 where there is no such key.
    """
    told = torch.tensor([float(record.metadata.get("desirability", 0.5)) for record in batch.records])
    ratios = (told / (1 - told)).clamp(MIN_DENSITY_RATIO, MAX_DENSITY_RATIO)
    prompts = batch.quantities["prompt_index"]
    return ratios.to(prompts.device)[prompts]
