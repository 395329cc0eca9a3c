"""Bradley-Terry reward model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mmalign_objectives.heads.reward_model import RewardModelConfig, reward_model_loss

CHOSEN = torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)
REJECTED = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
STRENGTH = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)


def loss_of(chosen: torch.Tensor, rejected: torch.Tensor, **options: Any) -> torch.Tensor:
    return reward_model_loss(chosen, rejected, STRENGTH, **{**RewardModelConfig().model_dump(), **options})[0]


def test_reward_model_loss_by_hand() -> None:
    """Scores 1 against 0: ln(1 + exp(-1)) = 0.3132616875182228; equal scores: ln 2."""
    assert loss_of(CHOSEN, REJECTED)[:2].tolist() == pytest.approx([0.3132616875182228, math.log(2)], rel=1e-15)


def test_gradients_of_both_scores_are_opposite() -> None:
    """(sigmoid(d) - 1) for chosen."""
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    loss_of(chosen, rejected).sum().backward()
    assert torch.allclose(chosen.grad, (CHOSEN - REJECTED).sigmoid() - 1, rtol=1e-14)
    assert torch.equal(chosen.grad, -rejected.grad)


def test_only_centering_sees_a_shift_of_all_scores() -> None:
    assert torch.allclose(loss_of(CHOSEN + 3, REJECTED + 3), loss_of(CHOSEN, REJECTED), atol=1e-15)
    shifted = loss_of(CHOSEN + 3, REJECTED + 3, centering=0.01) - loss_of(CHOSEN, REJECTED, centering=0.01)
    expected = 0.01 * ((CHOSEN + REJECTED + 6) ** 2 - (CHOSEN + REJECTED) ** 2)
    assert torch.allclose(shifted, expected, atol=1e-14)


def test_full_smoothing_is_least_where_the_scores_are_equal() -> None:
    chosen = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64).requires_grad_()
    losses = loss_of(chosen, torch.zeros(3).double(), label_smoothing=0.5)
    losses.sum().backward()
    assert losses.argmin().item() == 1
    assert chosen.grad[1].item() == 0.0


def test_margin_and_temperature_only_move_and_scale_the_difference() -> None:
    """L(d, m, tau) = L((d - m) / tau, 0, 1), with m = 0.5 times the strength."""
    moved = (CHOSEN - 0.5 * STRENGTH) / 0.2
    got = loss_of(CHOSEN, REJECTED, margin_scale=0.5, temperature=0.2)
    assert torch.allclose(got, loss_of(moved, REJECTED / 0.2), rtol=1e-13)


def test_unknown_strengths_do_no_harm_where_no_margin_is_asked_for() -> None:
    unknown = torch.full((3,), math.nan).double()
    losses, _ = reward_model_loss(CHOSEN, REJECTED, unknown, **RewardModelConfig().model_dump())
    assert torch.equal(losses, loss_of(CHOSEN, REJECTED))


def test_metrics_are_the_scores() -> None:
    _, metrics = reward_model_loss(CHOSEN, REJECTED, STRENGTH, **RewardModelConfig().model_dump())
    assert torch.equal(metrics["chosen_rewards"], CHOSEN)
    assert metrics["reward_accuracies"].tolist() == [1.0, 0.5, 0.0]
