"""Self-improving robust preference optimisation: one model answers, and improves on an answer that it sees.

Both are optimal where preferences are 1/2 plus certain sums of their log-ratios; the losses are the squared residuals
of these identities on labelled pairs. Nothing in them depends on which policy sampled the responses.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import square
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics

SPECS = (
    ObjectiveSpec(
        name="srpo",
        summary="Learns to answer and to improve on an answer: squared residuals of the optimum of both.",
        loss=f"{__name__}:srpo_loss",
        config=f"{__name__}:SRPOConfig",
        per="pair",
        over="rejected_to_chosen_row",
        equation=(
            "(1 - w) (1/2 - beta / 2 (l(c|r) - l(r|c) + l(c) - l(r)))^2 + w (1/2 - beta (l(c|r) - l(r|r)))^2 + "
            "w (1/2 + beta (l(r|c) - l(c|c)))^2, l = log(policy / reference)"
        ),
        paper="Self-Improving Robust Preference Optimization (arXiv:2406.01660)",
    ),
)


class SRPOConfig(Parameters):
    """Self-improving robust preference optimisation."""

    beta: float = Field(default=0.01, gt=0)
    """Strength of the pull to the reference."""
    improver_weight: float = Field(default=0.5, ge=0, le=1)
    """Share of the loss that is about revisions alone; the rest joins them with the answers."""


def srpo_loss(  # noqa: PLR0913
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    policy_rejected_to_chosen_sequence_logps: Tensor,
    policy_chosen_to_rejected_sequence_logps: Tensor,
    policy_chosen_to_chosen_sequence_logps: Tensor,
    policy_rejected_to_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    reference_rejected_to_chosen_sequence_logps: Tensor,
    reference_chosen_to_rejected_sequence_logps: Tensor,
    reference_chosen_to_chosen_sequence_logps: Tensor,
    reference_rejected_to_rejected_sequence_logps: Tensor,
    *,
    beta: float,
    improver_weight: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the squared residuals of both identities for every pair, with chosen preferred for sure.

    Args: all are [M], nats, summed over steps; `A_to_B` is response B given the prompt and A. Those of the reference
        are without gradient.
        beta: strength of the pull to the reference, positive.
        improver_weight: share of the identity about revisions alone, in [0, 1].

    Returns:
        losses [M] and detached metrics [M].

    Source: arXiv:2406.01660; the identities are derived anew from its closed-form optimum.
    """
    chosen, rejected = implicit_rewards(
        (policy_chosen_sequence_logps, policy_rejected_sequence_logps),
        (reference_chosen_sequence_logps, reference_rejected_sequence_logps),
        beta,
    )
    better, worse = implicit_rewards(
        (policy_rejected_to_chosen_sequence_logps, policy_chosen_to_rejected_sequence_logps),
        (reference_rejected_to_chosen_sequence_logps, reference_chosen_to_rejected_sequence_logps),
        beta,
    )
    same_chosen, same_rejected = implicit_rewards(
        (policy_chosen_to_chosen_sequence_logps, policy_rejected_to_rejected_sequence_logps),
        (reference_chosen_to_chosen_sequence_logps, reference_rejected_to_rejected_sequence_logps),
        beta,
    )
    joint = square((better - worse + chosen - rejected) / 2, 0.5)
    improver = square(better - same_rejected, 0.5) + square(worse - same_chosen, -0.5)
    return (1 - improver_weight) * joint + improver_weight * improver, reward_metrics(chosen, rejected)
