"""PRO."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign_objectives.lists.pro import OFFSET, pro_loss
from mmalign_objectives.pairs.simpo import simpo_loss

MEANS = torch.tensor([-0.5, -1.5, -1.0, -0.7, -0.2, -0.9], dtype=torch.float64)
SUMS = MEANS * torch.tensor([4, 7, 3, 5, 6, 2])
GRADES = torch.tensor([1.0, 3.0, 2.0, math.nan, 0.5, 2.0], dtype=torch.float64)
PROMPTS = torch.tensor([0, 0, 0, 0, 1, 1])


def loss_of(means: Tensor = MEANS, grades: Tensor = GRADES, nll_weight: float = 0.0) -> Tensor:
    return pro_loss(SUMS, means, grades, PROMPTS, nll_weight=nll_weight)[0]


def longhand(means: list[float], grades: list[float]) -> float:
    order = sorted(range(len(means)), key=lambda i: -grades[i])
    total = 0.0
    for place, best in enumerate(order[:-1]):
        gaps = [grades[best] - grades[other] for other in order[place + 1 :]]
        rivals = sum(math.exp(gap * means[other]) for gap, other in zip(gaps, order[place + 1 :], strict=True))
        own = max(gaps) * means[best]
        total += math.log(OFFSET + math.exp(own) + rivals) - own
    return total


def test_pro_loss_by_hand() -> None:
    """Two responses with equal mean log-probs: ln 2, whatever the gap; the offset adds 1e-10 / (2 p)."""
    means = torch.full_like(MEANS, -0.4)
    assert loss_of(means)[1].item() == pytest.approx(math.log(2), abs=1e-9)


def test_pro_agrees_with_a_longhand_reference() -> None:
    """The fourth response has no grade; the likelihood is that of the second, the best of three: (3 - 1)^2."""
    first, second = (longhand(MEANS[rows].tolist(), GRADES[rows].tolist()) for rows in (slice(0, 3), slice(4, 6)))
    assert loss_of().tolist() == pytest.approx([first, second], rel=1e-13)
    terms = [0.05 * 4 * -SUMS[1].item(), 0.05 * 1 * -SUMS[5].item()]
    assert loss_of(nll_weight=0.05).tolist() == pytest.approx([first + terms[0], second + terms[1]], rel=1e-13)


def test_two_responses_are_simpo_with_the_gap_for_beta() -> None:
    options = {"gamma": 0.0, "label_smoothing": 0.0, "link": "logistic", "nll_weight": 0.0, "alpha": 0.0}
    simpo = simpo_loss(MEANS[5:], MEANS[4:5], beta=1.5, **options)[0]
    assert loss_of()[1].item() == pytest.approx(simpo.item(), abs=1e-9)


def test_equal_grades_cost_the_logarithm_of_the_candidates_and_teach_nothing() -> None:
    means = MEANS.clone().requires_grad_()
    losses = loss_of(means, torch.where(GRADES.isnan(), GRADES, 1.0))
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([math.log(3) + math.log(2), math.log(2)], abs=1e-9)
    assert means.grad.abs().max().item() == 0


def test_pro_gradient_lifts_the_best_and_lowers_the_worst() -> None:
    means = MEANS.clone().requires_grad_()
    loss_of(means).sum().backward()
    assert means.grad[1] < 0 < means.grad[0]
    assert means.grad[5] < 0 < means.grad[4]
    assert means.grad[3] == 0
