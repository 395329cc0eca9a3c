"""Alignment via optimal transport: the whole distribution of chosen rewards shall dominate that of rejected ones.

Both are sorted over the global batch, and quantile is compared with quantile. Which value stands at which rank is known
only there, so every pair gets its opposite at the same rank as a quantity of the step: a number without gradient. What
is left is a loss per pair.

In the unpaired form both sides of a quantile carry gradient, and they usually belong to different pairs. A pair has
one term for each of its responses, each against its detached opposite. Their gradients sum to that of the sorted loss;
from the value one term is subtracted as it was when the step began, so that each quantile is counted once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.rewards import reward_metrics
from mmalign_objectives.support.shapes import check_shapes

if TYPE_CHECKING:
    from mmalign import StepContext

_PAPER = "Distributional Preference Alignment of LLMs via Optimal Transport (arXiv:2406.05882)"
_AOT = ObjectiveSpec(
    name="aot",
    aliases=("aot_paired",),
    summary="Policy margins of chosen over rejected shall dominate those of the reference, quantile by quantile.",
    loss=f"{__name__}:aot_loss",
    config=f"{__name__}:AOTConfig",
    per="pair",
    equation="-logsigmoid(beta (sort(pc - pr) - sort(rc - rr))), sorted over the global batch",
    paper=_PAPER,
)
_QUANTILE_PARTNERS_OF_MARGINS = QuantitySpec(
    name="quantile_partners_of_margins",
    summary="Reference margin of the rank that a pair's policy margin has in the global batch.",
    compute=f"{__name__}:match_margins",
    axes="M",
    stage="step",
    paper=_PAPER,
)
SPECS = (
    _AOT,
    replace(
        _AOT,
        name="aot_unpaired",
        aliases=(),
        summary="Log-ratios of chosen responses shall dominate those of rejected ones, quantile by quantile.",
        loss=f"{__name__}:aot_unpaired_loss",
        equation="-logsigmoid(beta (sort(pc - rc) - sort(pr - rr))), sorted over the global batch",
    ),
    _QUANTILE_PARTNERS_OF_MARGINS,
    replace(
        _QUANTILE_PARTNERS_OF_MARGINS,
        name="quantile_partners_of_chosen",
        summary="Log-prob with which chosen would have the rejected log-ratio of its rank in the global batch.",
        compute=f"{__name__}:match_chosen",
    ),
    replace(
        _QUANTILE_PARTNERS_OF_MARGINS,
        name="quantile_partners_of_rejected",
        summary="Log-prob with which rejected would have the chosen log-ratio of its rank in the global batch.",
        compute=f"{__name__}:match_rejected",
    ),
)


class AOTConfig(Parameters):
    """Alignment via optimal transport."""

    beta: float = Field(default=0.1, gt=0)
    """Inverse temperature of the implicit reward."""
    label_smoothing: float = Field(default=0.0, ge=0, le=0.5)
    """Probability that a preference label is wrong."""


def aot_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    quantile_partners_of_margins: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic loss of every pair's policy margin against the reference margin of the same rank.

    Args:
        policy_chosen_sequence_logps: [M], nats, summed over steps.
        policy_rejected_sequence_logps: [M].
        quantile_partners_of_margins: [M], the reference's margin of the rank that the pair's policy margin has in the
            global batch, no gradient.
        beta: inverse temperature of the implicit reward, positive.
        label_smoothing: probability that a label is flipped, in [0, 0.5].

    Returns:
        losses [M] and detached metrics [M]; the rewards in them are beta times the log-prob, without reference.

    Source: arXiv:2406.05882, the paired form with the logistic loss.
    """
    sides = {"policy_chosen": policy_chosen_sequence_logps, "policy_rejected": policy_rejected_sequence_logps}
    check_shapes(1, **sides, partners=quantile_partners_of_margins)
    margins = policy_chosen_sequence_logps - policy_rejected_sequence_logps
    losses = logistic(beta * (margins - quantile_partners_of_margins), label_smoothing)
    return losses, reward_metrics(beta * policy_chosen_sequence_logps, beta * policy_rejected_sequence_logps)


def aot_unpaired_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    rejected_current_sequence_logps: Tensor,
    quantile_partners_of_chosen: Tensor,
    quantile_partners_of_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the logistic losses of a chosen and a rejected log-ratio against their opposites of the same rank.

    The mean over the global batch is the loss of the sorted log-ratios, and so is its gradient.

    Args:
        policy_chosen_sequence_logps: [M], nats, summed over steps.
        policy_rejected_sequence_logps: [M], nats, summed over steps.
        rejected_current_sequence_logps: [M], the same as the step began, no gradient.
        quantile_partners_of_chosen: [M], the log-prob with which chosen would have the rejected log-ratio of its rank,
            no gradient.
        quantile_partners_of_rejected: [M], the log-prob with which rejected would have the chosen log-ratio of its
            rank, no gradient.
        beta: inverse temperature of the implicit reward, positive.
        label_smoothing: probability that a label is flipped, in [0, 0.5].

    Returns:
        losses [M] and the detached metrics `reward_margins` and `reward_accuracies` [M], of chosen against the
        rejected reward of its rank.

    Source: arXiv:2406.05882, the unpaired form with the logistic loss.
    """
    sides = {"policy_chosen": policy_chosen_sequence_logps, "policy_rejected": policy_rejected_sequence_logps}
    partners = {"of_chosen": quantile_partners_of_chosen, "of_rejected": quantile_partners_of_rejected}
    check_shapes(1, **sides, current=rejected_current_sequence_logps, **partners)
    of_chosen = beta * (policy_chosen_sequence_logps - quantile_partners_of_chosen)
    of_rejected = beta * (quantile_partners_of_rejected - policy_rejected_sequence_logps)
    before = beta * (quantile_partners_of_rejected - rejected_current_sequence_logps)
    losses = (
        logistic(of_chosen, label_smoothing)
        + logistic(of_rejected, label_smoothing)
        - logistic(before, label_smoothing)
    )
    metrics = reward_metrics(of_chosen, of_chosen.new_zeros(len(of_chosen)))
    return losses, {name: metrics[name] for name in ("reward_margins", "reward_accuracies")}


def match_margins(
    context: StepContext,
    chosen_current_sequence_logps: Tensor,
    rejected_current_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
) -> Tensor:
    """Finds for every pair the reference margin of the rank of its policy margin: [M], nats."""
    policy = chosen_current_sequence_logps - rejected_current_sequence_logps
    return match_ranks(context, policy, reference_chosen_sequence_logps - reference_rejected_sequence_logps)


def match_chosen(
    context: StepContext,
    chosen_current_sequence_logps: Tensor,
    rejected_current_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
) -> Tensor:
    """Finds for every chosen log-ratio the rejected one of its rank, as a log-prob of the chosen response: [M]."""
    chosen = chosen_current_sequence_logps - reference_chosen_sequence_logps
    rejected = rejected_current_sequence_logps - reference_rejected_sequence_logps
    return match_ranks(context, chosen, rejected) + reference_chosen_sequence_logps


def match_rejected(
    context: StepContext,
    chosen_current_sequence_logps: Tensor,
    rejected_current_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
) -> Tensor:
    """Finds for every rejected log-ratio the chosen one of its rank, as a log-prob of the rejected response: [M]."""
    chosen = chosen_current_sequence_logps - reference_chosen_sequence_logps
    rejected = rejected_current_sequence_logps - reference_rejected_sequence_logps
    return match_ranks(context, rejected, chosen) + reference_rejected_sequence_logps


def match_ranks(context: StepContext, values: Tensor, others: Tensor) -> Tensor:
    """Finds for each of `values` [M] the one of `others` [M] of the same rank; ranks are those in the global batch."""
    gathered, own = context.gather(values)
    opposites, _ = context.gather(others)
    ranks = gathered.argsort(stable=True).argsort()
    return opposites.sort().values[ranks[own]].to(values.dtype)
