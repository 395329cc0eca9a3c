"""Advantage-leftover-lunch RL: policy gradient on stored responses of which only better ones than expected teach.

A response is one action. Its likelihood is raised in proportion to its positive advantage; an importance ratio to the
reference, clipped and without gradient, says how much of it still is the policy's own. The engine weights responses
equally; to draw them by their advantage, too, is a matter of the data. `r_lol` has the forms on plain rewards.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters, masked_mean, masked_sum
from mmalign_objectives.support.shapes import check_shapes

_PAPER = "Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)"
_A_LOL = ObjectiveSpec(
    name="a_lol",
    summary="Likelihood of stored responses, weighted by positive advantage and clipped importance ratio.",
    loss=f"{__name__}:a_lol_loss",
    config=f"{__name__}:ALoLConfig",
    per="response",
    over="rating_advantages",
    # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
    log_prob_kinds=("exact",),
    equation="-max(A, 0) clip(exp(p - r), 1 - clip, 1 + clip) p",
    paper=_PAPER,
)
_A_LOL_REF_FREE = ObjectiveSpec(
    name="a_lol_ref_free",
    summary="Likelihood of stored responses, weighted by positive advantage.",
    loss=f"{__name__}:a_lol_ref_free_loss",
    per="response",
    over="rating_advantages",
    equation="-max(A, 0) p",
    paper=_PAPER,
)
SPECS = (
    _A_LOL,
    _A_LOL_REF_FREE,
    replace(
        _A_LOL,
        name="a_lol_seq",
        summary="A-LoL with an importance ratio for every step.",
        loss=f"{__name__}:a_lol_seq_loss",
        equation="-max(A, 0) sum_t clip(exp(p_t - r_t), 1 - clip, 1 + clip) p_t",
    ),
    replace(
        _A_LOL_REF_FREE,
        name="a_lol_kl",
        summary="Likelihood of stored responses, weighted by positive advantage, with a KL penalty.",
        loss=f"{__name__}:a_lol_kl_loss",
        config=f"{__name__}:ALoLKLConfig",
        equation="-max(A, 0) p + kl_weight (p - r)",
    ),
)


class ALoLConfig(Parameters):
    """Advantage-leftover-lunch RL."""

    clip: float = Field(default=0.9, ge=0, le=1)
    """How far the importance ratio may be from 1."""


class ALoLKLConfig(Parameters):
    """Advantage-leftover-lunch RL with a KL penalty."""

    kl_weight: float = Field(default=0.1, ge=0)
    """Weight of the log-ratio to the reference."""


def a_lol_loss(
    policy_sequence_logps: Tensor, reference_sequence_logps: Tensor, rating_advantages: Tensor, *, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative log-likelihood of every response times its positive advantage and importance ratio.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        rating_advantages: [N], no gradient.
        clip: how far the ratio may be from 1, in [0, 1].

    Returns:
        losses [N] and the detached metrics `ratio` and `advantages` [N].

    Source: arXiv:2305.14718, A-LoL.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, advantages=rating_advantages)
    ratio = clipped_ratio(policy_sequence_logps - reference_sequence_logps, clip)
    losses = -rating_advantages.detach().relu() * ratio * policy_sequence_logps
    return losses, {"ratio": ratio, "advantages": rating_advantages.detach()}


def a_lol_ref_free_loss(policy_sequence_logps: Tensor, rating_advantages: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the negative log-likelihood of every response times its positive advantage.

    Arguments and results are those of `a_lol_loss`, without the reference and the ratio.

    Source: arXiv:2305.14718, A-LoL ref-free.
    """
    check_shapes(1, policy=policy_sequence_logps, advantages=rating_advantages)
    losses = -rating_advantages.detach().relu() * policy_sequence_logps
    return losses, {"advantages": rating_advantages.detach()}


def a_lol_seq_loss(
    policy_logps: Tensor, reference_logps: Tensor, step_mask: Tensor, rating_advantages: Tensor, *, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of `a_lol_loss` with an importance ratio for every step.

    Args:
        policy_logps: [N, T], nats.
        reference_logps: [N, T], nats, no gradient.
        step_mask: [N, T] bool.
        rating_advantages: [N], no gradient.
        clip: how far each ratio may be from 1, in [0, 1].

    Returns:
        losses [N] and the detached metrics `ratio` (its mean over steps) and `advantages` [N].

    Source: arXiv:2305.14718, A-LoL sequence.
    """
    check_shapes(2, policy_logps=policy_logps, reference_logps=reference_logps, step_mask=step_mask)
    ratio = clipped_ratio(torch.where(step_mask, policy_logps - reference_logps, 0), clip)
    likelihood = masked_sum(ratio * torch.where(step_mask, policy_logps, 0), step_mask)
    losses = -rating_advantages.detach().relu() * likelihood
    return losses, {"ratio": masked_mean(ratio, step_mask), "advantages": rating_advantages.detach()}


def a_lol_kl_loss(
    policy_sequence_logps: Tensor, reference_sequence_logps: Tensor, rating_advantages: Tensor, *, kl_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the loss of `a_lol_ref_free_loss` plus the weighted log-ratio, whose gradient flows.

    Args: the tensors are those of `a_lol_loss`.
        kl_weight: weight of the log-ratio, at least 0.

    Returns:
        losses [N] and the detached metrics `kl` and `advantages` [N].

    Source: arXiv:2305.14718, A-LoL with a KL penalty.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, advantages=rating_advantages)
    log_ratios = policy_sequence_logps - reference_sequence_logps
    losses, metrics = a_lol_ref_free_loss(policy_sequence_logps, rating_advantages)
    return losses + kl_weight * log_ratios, {**metrics, "kl": log_ratios.detach()}


def clipped_ratio(log_ratios: Tensor, clip: float) -> Tensor:
    """Computes the importance ratio of log-ratios of any shape, cut to [1 - clip, 1 + clip], without gradient."""
    return log_ratios.detach().exp().clamp(1 - clip, 1 + clip)
