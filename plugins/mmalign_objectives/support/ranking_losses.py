"""Learning to rank: losses of one list each, [P, K] to [P].

All get `scores` [P, K] (what the model thinks, with gradient), `grades` [P, K] (what is known, the higher the better)
and `mask` [P, K] bool, and sum over the places or pairs of places that count; equal grades make no pair.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign_objectives.support.links import hinge, logistic
from mmalign_objectives.support.lists import differences, mark_better, order_best_first

MAX_GRADE = 60.0
"""Grades are cut here before they become a power of two: no useful grade gets near it, and float32 would overflow."""


def point_square(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of every score from its grade."""
    return torch.where(mask, (grades - scores) ** 2, 0).sum(dim=1)


def point_sigmoid(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of sigmoid(score) with the grade, which is a probability."""
    losses = -grades * logsigmoid(scores) - (1 - grades) * logsigmoid(-scores)
    return torch.where(mask, losses, 0).sum(dim=1)


def pair_logistic(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss of the margin of every (better, worse)."""
    return _sum_pairs(logistic(differences(scores)), grades, mask)


def pair_hinge(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """What the margin of every (better, worse) lacks of 1."""
    return _sum_pairs(hinge(differences(scores)), grades, mask)


def pair_square(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of the margin of every (better, worse) from that of their grades."""
    return _sum_pairs((differences(scores) - differences(grades)) ** 2, grades, mask)


def lambda_rank(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Logistic loss of every (better, worse), times what swapping both would change in the discounted gain.

    The weight, see `swap_weights`, is detached.
    """
    return _sum_pairs(swap_weights(scores.detach(), grades, mask) * logistic(differences(scores)), grades, mask)


def plackett_luce(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Minus the log-likelihood of the order of the grades, if the best is drawn first, then the best of the rest..."""
    order = order_best_first(grades, mask)
    # Padding is last and weighs nothing; minus infinity would have no gradient to be multiplied by zero.
    lowest = torch.finfo(scores.dtype).min / 4
    ordered = scores.masked_fill(~mask, lowest).gather(1, order)
    remaining = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    return torch.where(mask.gather(1, order), remaining - ordered, 0).sum(dim=1)


def cross_entropy(scores: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of softmax(scores) with `weights` [P, K], in the place of grades, that sum to 1."""
    lowest = torch.finfo(scores.dtype).min / 4
    return -torch.where(mask, weights * scores.masked_fill(~mask, lowest).log_softmax(dim=1), 0).sum(dim=1)


def softmax_cross_entropy(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of softmax(scores) with grades divided by their sum.

    Negative grades count as 0; a list without a positive one has loss 0.
    """
    positive = torch.where(mask, grades, 0).clamp(min=0)
    total = positive.sum(dim=1, keepdim=True)
    return cross_entropy(scores, positive / torch.where(total > 0, total, 1), mask)


def swap_weights(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Computes by how much the discounted gain would change if i and j swapped ranks: [P, K] to [P, K, K].

    Gain 2^grade - 1, discount ln(1 + rank); ranks are those of `scores`, 1 for the highest, ties in the data's order.
    """
    ranks = order_best_first(scores, mask).argsort(dim=1) + 1  # [P, K]
    gains = torch.exp2(grades.clamp(max=MAX_GRADE)) - 1
    inverse_discounts = 1 / torch.log1p(ranks.to(scores.dtype))
    return (differences(gains) * differences(inverse_discounts)).abs()


def _sum_pairs(losses: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mark_better(grades, mask), losses, 0).sum(dim=(1, 2))
