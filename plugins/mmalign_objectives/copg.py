"""Contrastive policy gradient: two rated responses, each with the other's regularised rating as baseline."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import Parameters
from mmalign_objectives.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.shapes import check_shapes


class CoPGConfig(Parameters):
    """Contrastive policy gradient."""

    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull to the reference, in units of the ratings a nat."""


def copg_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    chosen_ratings: Tensor,
    rejected_ratings: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative product of the gap in regularised ratings and the gap in log-ratios.

    Which response is called chosen does not matter. The gradient flows through everything; it is that of
    (ratings - beta log-ratios) gap times the log-prob gap, right for responses of any origin.

    Args: the log-probs are those of `dpo_loss`.
        chosen_ratings: [M], no gradient.
        rejected_ratings: [M].
        beta: strength of the pull to the reference, positive.

    Returns:
        losses [M], not bounded by 0, and detached metrics [M].

    Source: arXiv:2406.19185, the empirical objective of CoPG, negated.
    """
    check_shapes(1, chosen_ratings=chosen_ratings, rejected_ratings=rejected_ratings)
    policy = (policy_chosen_sequence_logps, policy_rejected_sequence_logps)
    reference = (reference_chosen_sequence_logps, reference_rejected_sequence_logps)
    chosen_ratios, rejected_ratios = implicit_rewards(policy, reference, 1.0)
    margins = chosen_ratios - rejected_ratios
    losses = -(chosen_ratings - rejected_ratings - beta / 2 * margins) * margins
    return losses, reward_metrics(beta * chosen_ratios, beta * rejected_ratios)
