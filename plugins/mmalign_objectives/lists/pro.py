"""Preference ranking optimisation: the best response against all others, then the second against the rest..."""

from __future__ import annotations

from math import log

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec, Parameters
from mmalign_objectives.support.lists import differences, group_lists, order_best_first, ranking_metrics
from mmalign_objectives.support.shapes import check_shapes

SPECS = (
    ObjectiveSpec(
        name="pro",
        summary="Every response of a ranked list against all worse ones, plus the likelihood of the best.",
        loss=f"{__name__}:pro_loss",
        config=f"{__name__}:PROConfig",
        per="prompt",
        over="graded",
        equation=(
            "sum_k (log(exp(t_kk m_k) + sum over j > k of exp(t_kj m_j)) - t_kk m_k) - nll_weight (K - 1)^2 "
            "p_1, best first, t_kj = g_k - g_j, t_kk = max_j t_kj"
        ),
        paper="Preference Ranking Optimization for Human Alignment (arXiv:2306.17492)",
    ),
)


OFFSET = 1e-10
"""Added to every normaliser, as the official code does."""


class PROConfig(Parameters):
    """Preference ranking optimisation."""

    nll_weight: float = Field(default=0.05, ge=0)
    """Weight of the likelihood of the best response, times (responses - 1)^2."""


def pro_loss(
    policy_sequence_logps: Tensor, policy_mean_logps: Tensor, grades: Tensor, prompt_index: Tensor, *, nll_weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the Plackett-Luce cascade of every prompt's list, with grade gaps as inverse temperatures.

    In round k the best of what remains, k, is contrasted with all worse ones, j: their mean log-probs are multiplied by
    the gap of grades between k and j, that of k itself by the widest gap. The summed log-prob of the best is added.

    Args:
        policy_sequence_logps: [N], nats, summed over steps.
        policy_mean_logps: [N], nats, mean over steps.
        grades: [N], how good each response is; NaN for those that take no part.
        prompt_index: [N], which prompt a response answers.
        nll_weight: weight of the likelihood term, at least 0.

    Returns:
        losses [P] and detached metrics [P]; the reward is the mean log-prob.

    Source: arXiv:2306.17492; likelihood term and offset as in the official code.
    """
    tensors = {"sequence": policy_sequence_logps, "mean": policy_mean_logps, "grades": grades}
    check_shapes(1, **tensors, prompt_index=prompt_index)
    lists = group_lists(prompt_index, ~grades.isnan())
    sums, means, known = (lists.pad(values) for values in tensors.values())
    order = order_best_first(known, lists.mask)
    mask = lists.mask.gather(1, order)
    rounds = _contrast(means.gather(1, order), known.gather(1, order), mask)
    likelihood = torch.where(mask[:, 0], sums.gather(1, order)[:, 0], 0)
    rivals = (mask.sum(dim=1) - 1).to(rounds.dtype)
    losses = rounds - nll_weight * rivals**2 * likelihood
    return losses, ranking_metrics(means, known, lists.mask)


def _contrast(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Sums over rounds the negative log-share of the round's best; all are [P, K], best first."""
    following = torch.ones_like(differences(grades), dtype=torch.bool).triu(1) & mask[:, None, :]  # [P, K, K]
    gaps = torch.where(following, differences(grades), 0)
    widest = gaps.amax(dim=2)  # [P, K]
    own = widest * scores
    logits = torch.cat([gaps * scores[:, None, :], own[:, :, None]], dim=2)
    takes_part = torch.cat([following, mask[:, :, None]], dim=2)
    lowest = torch.finfo(scores.dtype).min / 4
    logits = logits.masked_fill(~takes_part, lowest)
    offset = torch.full_like(own, log(OFFSET))[:, :, None]
    losses = torch.cat([logits, offset], dim=2).logsumexp(dim=2) - own
    return torch.where(following.any(dim=2), losses, 0).sum(dim=1)
