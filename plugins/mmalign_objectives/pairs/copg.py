"""Contrastive policy gradient: rated responses, each with the regularised ratings of the others as baseline.

`copg` takes the pairs of the data, whichever of the two is rated higher; `copg_group` all rated responses to a prompt,
which is the mean over their pairs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.rewards import implicit_rewards, reward_metrics
from mmalign_objectives.support.shapes import check_shapes

_COPG = ObjectiveSpec(
    name="copg",
    summary="Contrastive policy gradient: two rated responses of any origin, each the baseline of the other.",
    loss=f"{__name__}:copg_loss",
    config=f"{__name__}:CoPGConfig",
    per="pair",
    over="ratings",
    equation="-(R_c - R_r - beta / 2 m) m, m = (pc - rc) - (pr - rr)",
    paper="Contrastive Policy Gradient (arXiv:2406.19185)",
)
SPECS = (
    _COPG,
    replace(
        _COPG,
        name="copg_group",
        summary="Contrastive policy gradient over all rated responses to a prompt.",
        loss=f"{__name__}:copg_group_loss",
        per="prompt",
        equation="-2 cov(R - beta / 2 d, d), d = p - r",
    ),
    replace(
        _COPG,
        name="copg_online",
        summary="Contrastive policy gradient on sampled responses and their composite rewards.",
        loss=f"{__name__}:copg_group_loss",
        names={"ratings": "composite_rewards"},
        per="prompt",
        over="composite_rewards",
        equation="-2 cov(R - beta / 2 d, d), d = p - r",
    ),
)


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


def copg_group_loss(
    policy_sequence_logps: Tensor,
    reference_sequence_logps: Tensor,
    ratings: Tensor,
    prompt_index: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes for every prompt the mean of `copg_loss` over the pairs of its rated responses.

    That is minus twice the covariance of regularised ratings and log-ratios, so it takes no loop over pairs.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        reference_sequence_logps: [N], nats, summed over steps, no gradient.
        ratings: [N], no gradient; a response with NaN is left out.
        prompt_index: [N], which prompt a response answers.
        beta: strength of the pull to the reference, positive.

    Returns:
        losses [P] by ascending prompt, 0 with fewer than two ratings, and the detached metric `log_ratios` [P], a mean.

    Source: arXiv:2406.19185, the extension to several responses a prompt, negated.
    """
    check_shapes(1, policy=policy_sequence_logps, reference=reference_sequence_logps, ratings=ratings)
    known = ~ratings.isnan()
    prompts, place = torch.unique(prompt_index, return_inverse=True)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(len(prompts)).index_add(0, place, torch.where(known, values, 0))

    count = total(torch.ones_like(ratings))
    log_ratios = torch.where(known, policy_sequence_logps - reference_sequence_logps, 0)
    regularised = torch.where(known, ratings, 0) - beta / 2 * log_ratios
    means = total(log_ratios) / count.clamp(min=1)
    rewards = total(regularised) / count.clamp(min=1)
    covariance = total((regularised - rewards[place]) * (log_ratios - means[place])) / (count - 1).clamp(min=1)
    return -2 * covariance, {"log_ratios": means.detach()}
