"""Aligned supervised fine-tuning: absolute odds of chosen and rejected responses, without a reference.

Anchored supervised fine-tuning, which has the same abbreviation, is another method.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.links import logistic
from mmalign_objectives.support.odds import log_odds
from mmalign_objectives.support.rewards import reward_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="asft",
        summary="Aligned supervised fine-tuning: likelihood and absolute odds of both responses.",
        loss=f"{__name__}:asft_loss",
        config=f"{__name__}:ASFTConfig",
        per="pair",
        # The odds are those of a probability, which a bound on a log-prob is not.
        log_prob_kinds=("exact",),
        equation="-pc / lc - odds_weight (logsigmoid(log_odds(pc / lc)) + logsigmoid(-log_odds(pr / lr)))",
        paper="ASFT: Aligned Supervised Fine-Tuning through Absolute Likelihood (arXiv:2409.10571)",
    ),
)


class ASFTConfig(Parameters):
    """Aligned supervised fine-tuning."""

    odds_weight: float = Field(default=0.5, ge=0)
    """Weight of the odds terms; lambda in the paper, 0.1 to 1."""


def asft_loss(
    policy_chosen_mean_logps: Tensor, policy_rejected_mean_logps: Tensor, *, odds_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative mean log-prob of the chosen response plus logistic losses of both responses' log-odds.

    As sigmoid(log-odds) is the probability, that is -(1 + odds_weight) log p_chosen - odds_weight log(1 - p_rejected).

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps.
        policy_rejected_mean_logps: [M], nats, mean over steps.
        odds_weight: weight of the odds terms, at least 0.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward is the log-odds.

    Source: arXiv:2409.10571, with a weight of the odds terms.
    """
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, policy_rejected=policy_rejected_mean_logps)
    chosen_rewards, rejected_rewards = log_odds(policy_chosen_mean_logps), log_odds(policy_rejected_mean_logps)
    losses = odds_weight * (logistic(chosen_rewards) + logistic(-rejected_rewards)) - policy_chosen_mean_logps
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
