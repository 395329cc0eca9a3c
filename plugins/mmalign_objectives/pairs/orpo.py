"""Odds-ratio preference optimisation: supervised fine-tuning and preference in one stage, without a reference."""

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
        name="orpo",
        summary="Likelihood of the chosen response plus a logistic loss of the log odds ratio.",
        loss=f"{__name__}:orpo_loss",
        config=f"{__name__}:ORPOConfig",
        per="pair",
        # The odds are those of a probability, which a bound on a log-prob is not.
        log_prob_kinds=("exact",),
        equation="-pc / lc - odds_weight logsigmoid(log_odds(pc / lc) - log_odds(pr / lr))",
        paper="ORPO: Monolithic Preference Optimization without Reference Model (arXiv:2403.07691)",
    ),
)


class ORPOConfig(Parameters):
    """Odds-ratio preference optimisation."""

    odds_weight: float = Field(default=0.1, ge=0)
    """Weight of the odds-ratio term; lambda in the paper, beta in TRL."""


def orpo_loss(
    policy_chosen_mean_logps: Tensor, policy_rejected_mean_logps: Tensor, *, odds_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative mean log-prob of the chosen response plus the logistic loss of the log odds ratio.

    Args:
        policy_chosen_mean_logps: [M], nats, mean over steps.
        policy_rejected_mean_logps: [M], nats, mean over steps.
        odds_weight: weight of the odds-ratio term, at least 0.

    Returns:
        losses [M] and detached metrics [M]; the implicit reward is the log-odds.

    Source: arXiv:2403.07691, equations 6 and 7.
    Differs: the likelihood term is a mean over response steps; the official code counts the prompt, too.
    """
    check_shapes(1, policy_chosen=policy_chosen_mean_logps, policy_rejected=policy_rejected_mean_logps)
    chosen_rewards, rejected_rewards = log_odds(policy_chosen_mean_logps), log_odds(policy_rejected_mean_logps)
    losses = odds_weight * logistic(chosen_rewards - rejected_rewards) - policy_chosen_mean_logps
    return losses, reward_metrics(chosen_rewards, rejected_rewards)
