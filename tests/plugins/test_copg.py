"""Contrastive policy gradient."""

from __future__ import annotations

import pytest
import torch
from pair_cases import PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.copg import copg_group_loss, copg_loss
from mmalign_objectives.pairs.ipo import ipo_loss

CHOSEN = torch.tensor([1.2, 0.3, 2.0], dtype=torch.float64)
REJECTED = torch.tensor([0.2, 0.5, 1.1], dtype=torch.float64)
BETA = 0.3


def loss_of(pairs: Tensor, chosen: Tensor = CHOSEN, rejected: Tensor = REJECTED) -> Tensor:
    return copg_loss(*pairs.unbind(1), chosen, rejected, beta=BETA)[0]


def test_copg_by_hand() -> None:
    """Rating gap 1, log-ratios 1 and -1, beta 0.5: -((1 - 0.25) - (0 + 0.25)) x 2 = -1."""
    loss, _ = copg_loss(*PAIRS[:1].unbind(1), CHOSEN[:1], REJECTED[:1], beta=0.5)
    assert loss.item() == pytest.approx(-1.0, rel=1e-14)


def test_copg_agrees_with_a_longhand_reference() -> None:
    rows = zip(PAIRS.tolist(), CHOSEN.tolist(), REJECTED.tolist(), loss_of(PAIRS), strict=True)
    for (pc, pr, rc, rr), chosen, rejected, loss in rows:
        regularised = [chosen - BETA / 2 * (pc - rc), rejected - BETA / 2 * (pr - rr)]
        expected = -(regularised[0] - regularised[1]) * ((pc - rc) - (pr - rr))
        assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_copg_is_a_regression_of_the_rating_gap() -> None:
    """-l = ((R - R') - beta m)^2 / (2 beta) - (R - R')^2 / (2 beta)."""
    gap = CHOSEN - REJECTED
    expected = ((gap - BETA * margins(PAIRS)) ** 2 - gap**2) / (2 * BETA)
    assert torch.allclose(loss_of(PAIRS), expected, rtol=1e-12)


def test_ratings_of_a_quarter_have_the_gradient_of_ipo() -> None:
    """Of (1/2 - beta m)^2 / (2 beta), that is beta / 2 times the one of IPO with tau = beta."""
    quarter = torch.full((3,), 0.25, dtype=torch.float64)
    gradient = gradient_of(lambda pairs: loss_of(pairs, quarter, -quarter), PAIRS)
    ipo = gradient_of(lambda pairs: ipo_loss(*pairs.unbind(1), tau=BETA)[0], PAIRS)
    assert torch.allclose(gradient, BETA / 2 * ipo, rtol=1e-12)


def test_its_gradient_is_the_policy_gradient_with_the_other_response_as_baseline() -> None:
    """The one of RLOO with two samples and KL-regularised rewards R - beta d."""
    gradient = gradient_of(loss_of, PAIRS)
    weight = (CHOSEN - REJECTED) - BETA * margins(PAIRS)
    assert torch.allclose(gradient[:, 0], -weight, rtol=1e-12)
    assert torch.allclose(gradient[:, 1], weight, rtol=1e-12)


def test_it_does_not_matter_which_response_is_called_chosen() -> None:
    assert torch.allclose(loss_of(PAIRS[:, [1, 0, 3, 2]], REJECTED, CHOSEN), loss_of(PAIRS), rtol=1e-13)


POLICY = torch.tensor([-10.0, -7.0, -12.0, -5.0, -9.0, -4.0], dtype=torch.float64)
REFERENCE = torch.tensor([-11.0, -7.5, -11.0, -6.0, -8.0, -5.0], dtype=torch.float64)
RATINGS = torch.tensor([1.2, 0.3, 0.2, 0.5, -1.0, float("nan")], dtype=torch.float64)
PROMPTS = torch.tensor([7, 3, 7, 7, 3, 3])


def group(policy: Tensor, ratings: Tensor = RATINGS) -> Tensor:
    return copg_group_loss(policy, REFERENCE, ratings, PROMPTS, beta=BETA)[0]


def test_a_group_is_the_mean_over_its_pairs() -> None:
    """Prompt 3 has two ratings, so it is one pair; prompt 7 has three."""
    rows = torch.stack([POLICY, REFERENCE], dim=1)

    def pair(first: int, second: int) -> float:
        both = torch.cat([rows[[first, second], 0], rows[[first, second], 1]])[None]
        return loss_of(both, RATINGS[[first]], RATINGS[[second]]).item()

    three = (pair(0, 2) + pair(0, 3) + pair(2, 3)) / 3
    assert group(POLICY).tolist() == pytest.approx([pair(1, 4), three], rel=1e-12)


def test_the_gradient_of_a_group_has_the_other_responses_as_baseline() -> None:
    """-(2 / K) times regularised rating less the mean of the others, as RLOO has it."""
    policy = POLICY.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(group(policy).sum(), policy)
    regularised = RATINGS - BETA * (POLICY - REFERENCE)
    for own, others in ((0, [2, 3]), (2, [0, 3]), (3, [0, 2])):
        expected = -2 / 3 * (regularised[own] - regularised[others].mean())
        assert gradient[own].item() == pytest.approx(expected.item(), rel=1e-12)


def test_responses_without_a_rating_and_prompts_with_one_teach_nothing() -> None:
    alone = RATINGS.clone()
    alone[1] = float("nan")
    policy = POLICY.clone().requires_grad_()
    losses = group(policy, alone)
    (gradient,) = torch.autograd.grad(losses.sum(), policy)
    assert losses[0].item() == 0.0
    assert gradient[[1, 4, 5]].tolist() == [0.0, 0.0, 0.0]
