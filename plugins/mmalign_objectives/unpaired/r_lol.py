"""Offline policy gradient on plain rewards: the baselines of A-LoL, which needs no value of the prompt."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, masked_mean, masked_sum
from mmalign_objectives.support.shapes import check_shapes
from mmalign_objectives.unpaired.a_lol import clipped_ratio

_PAPER = "Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)"
_R_LOL = ObjectiveSpec(
    name="r_lol",
    summary="Likelihood of stored responses, weighted by rating and clipped importance ratio.",
    loss=f"{__name__}:r_lol_loss",
    config=f"{__name__}:RLoLConfig",
    per="response",
    over="ratings",
    # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
    log_prob_kinds=("exact",),
    equation="-R clip(exp(p - r), 1 - clip, 1 + clip) p",
    paper=_PAPER,
)
SPECS = (
    _R_LOL,
    ObjectiveSpec(
        name="weighted_cloning",
        summary="Weighted behaviour cloning: likelihood of stored responses, weighted by rating.",
        loss=f"{__name__}:weighted_cloning_loss",
        per="response",
        over="ratings",
        equation="-R p",
        paper=_PAPER,
    ),
    replace(
        _R_LOL,
        name="reward_gold",
        summary="Likelihood of steps weighted by their own probability and the rating of the response.",
        loss=f"{__name__}:reward_gold_loss",
        config=f"{__name__}:RewardGOLDConfig",
        equation="-R sum_t max(exp(p_t), floor) p_t",
    ),
)


class RLoLConfig(Parameters):
    """Reward-leftover-lunch RL."""

    clip: float = Field(default=0.9, ge=0, le=1)
    """How far the importance ratio may be from 1."""


class RewardGOLDConfig(Parameters):
    """Reward-weighted GOLD."""

    floor: float = Field(default=0.1, ge=0, le=1)
    """Lowest step probability that counts as its weight."""


def r_lol_loss(
    policy_sequence_logps: Tensor, reference_sequence_logps: Tensor, ratings: Tensor, *, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative log-likelihood of every response times its rating and importance ratio.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        ratings: [N], rewards; a negative one lowers the likelihood.
        clip: how far the ratio may be from 1, in [0, 1].

    Returns:
        losses [N] and the detached metric `ratio` [N].

    Source: arXiv:2305.14718, R-LoL.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, ratings=ratings)
    ratio = clipped_ratio(policy_sequence_logps - reference_sequence_logps, clip)
    return -ratings * ratio * policy_sequence_logps, {"ratio": ratio}


def weighted_cloning_loss(policy_sequence_logps: Tensor, ratings: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative log-likelihood of every response times its rating: weighted behaviour cloning.

    Arguments and losses are those of `r_lol_loss`, without the reference and the ratio; there are no metrics.

    Source: arXiv:2305.14718, the baseline wBC.
    """
    check_shapes(1, policy=policy_sequence_logps, ratings=ratings)
    return -ratings * policy_sequence_logps, {}


def reward_gold_loss(
    policy_logps: Tensor, step_mask: Tensor, ratings: Tensor, *, floor: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative log-likelihood of steps weighted by their own probability, times the rating.

    Args:
        policy_logps: [N, T], nats.
        step_mask: [N, T] bool.
        ratings: [N], rewards.
        floor: lowest probability that counts as weight, in [0, 1].

    Returns:
        losses [N] and the detached metric `step_weight`, the mean weight of the steps [N].

    Source: arXiv:2305.14718, the baseline Reward GOLD.
    """
    check_shapes(2, policy_logps=policy_logps, step_mask=step_mask)
    check_shapes(1, ratings=ratings)
    policy = torch.where(step_mask, policy_logps, 0)
    weights = policy.detach().exp().clamp(min=floor)
    return -ratings * masked_sum(weights * policy, step_mask), {"step_weight": masked_mean(weights, step_mask)}
