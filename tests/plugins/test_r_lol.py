"""R-LoL, weighted behaviour cloning and reward GOLD."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.unpaired.a_lol import a_lol_loss
from mmalign_objectives.unpaired.r_lol import r_lol_loss, reward_gold_loss, weighted_cloning_loss

POLICY = torch.tensor([-3.0, -6.0, -4.0], dtype=torch.float64)
REFERENCE = torch.tensor([-3.5, -5.0, -4.0], dtype=torch.float64)
RATINGS = torch.tensor([1.2, 0.3, -0.4], dtype=torch.float64)
STEPS = torch.tensor([[math.log(0.5), math.log(0.05)], [math.log(0.25), math.nan]], dtype=torch.float64)
MASK = torch.tensor([[True, True], [True, False]])


def test_by_hand() -> None:
    """A step of probability 1/2 counts one half, one of 0.05 the floor of 0.1: 2 (0.5 ln 2 + 0.1 ln 20)."""
    losses, _ = reward_gold_loss(STEPS[:1], MASK[:1], torch.tensor([2.0], dtype=torch.float64), floor=0.1)
    assert losses.item() == pytest.approx(math.log(2) + 0.2 * math.log(20), rel=1e-14)


def test_r_lol_agrees_with_a_longhand_reference() -> None:
    losses, _ = r_lol_loss(POLICY, REFERENCE, RATINGS, clip=0.4)
    for policy, reference, rating, loss in zip(POLICY, REFERENCE, RATINGS, losses, strict=True):
        ratio = min(max(math.exp(policy.item() - reference.item()), 0.6), 1.4)
        assert loss.item() == pytest.approx(rating.item() * ratio * -policy.item(), rel=1e-14)


def test_r_lol_is_a_lol_where_ratings_are_advantages() -> None:
    positive = RATINGS.relu()
    a_lol, _ = a_lol_loss(POLICY, REFERENCE, RATINGS, clip=0.9)
    assert torch.equal(r_lol_loss(POLICY, REFERENCE, positive, clip=0.9)[0], a_lol)


def test_r_lol_is_weighted_cloning_where_the_policy_is_the_reference() -> None:
    cloning, metrics = weighted_cloning_loss(POLICY, RATINGS)
    assert torch.allclose(r_lol_loss(POLICY, POLICY, RATINGS, clip=0.9)[0], cloning, rtol=1e-14)
    assert torch.allclose(cloning, RATINGS * -POLICY, rtol=1e-14)
    assert metrics == {}


def test_gradients_leave_ratio_and_weights_alone() -> None:
    policy, steps = POLICY.clone().requires_grad_(), STEPS.clone().requires_grad_()
    r_lol_loss(policy, REFERENCE, RATINGS, clip=0.9)[0].sum().backward()
    assert torch.allclose(policy.grad, -RATINGS * (POLICY - REFERENCE).exp(), rtol=1e-14)
    _, metrics = reward_gold_loss(steps, MASK, RATINGS[:2], floor=0.1)
    reward_gold_loss(steps, MASK, RATINGS[:2], floor=0.1)[0].sum().backward()
    expected = torch.tensor([[-0.5 * 1.2, -0.1 * 1.2], [-0.25 * 0.3, 0.0]], dtype=torch.float64)
    assert torch.allclose(steps.grad, expected, rtol=1e-14)
    assert metrics["step_weight"].tolist() == pytest.approx([0.3, 0.25], rel=1e-14)


def test_negative_ratings_lower_the_likelihood() -> None:
    policy = POLICY.clone().requires_grad_()
    weighted_cloning_loss(policy, RATINGS)[0].sum().backward()
    assert policy.grad.sign().tolist() == [-1.0, -1.0, 1.0]
