"""Aligned supervised fine-tuning."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.pairs.asft import asft_loss
from mmalign_objectives.pairs.orpo import orpo_loss

CHOSEN = torch.tensor([-1.0, -0.5, -2.0], dtype=torch.float64)
REJECTED = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)


def test_asft_by_hand() -> None:
    """Probabilities 1/2 and 1/4, weight 1: 2 ln 2 - ln(3/4)."""
    chosen, rejected = torch.tensor([[0.5], [0.25]], dtype=torch.float64).log()
    assert asft_loss(chosen, rejected, odds_weight=1.0)[0].item() == pytest.approx(math.log(16 / 3), rel=1e-14)


def test_asft_agrees_with_its_closed_form() -> None:
    """-(1 + w) u_w - w log(1 - exp(u_l))."""
    losses, _ = asft_loss(CHOSEN, REJECTED, odds_weight=0.3)
    for chosen, rejected, loss in zip(CHOSEN.tolist(), REJECTED.tolist(), losses, strict=True):
        assert loss.item() == pytest.approx(-1.3 * chosen - 0.3 * math.log(1 - math.exp(rejected)), rel=1e-14)


def test_asft_is_at_least_orpo_by_what_their_odds_say() -> None:
    """The difference is -w log(p_w (1 - p_l) + p_l (1 - p_w))."""
    asft, _ = asft_loss(CHOSEN, REJECTED, odds_weight=0.3)
    orpo, _ = orpo_loss(CHOSEN, REJECTED, odds_weight=0.3)
    w, l = CHOSEN.exp(), REJECTED.exp()  # noqa: E741
    assert torch.allclose(asft - orpo, -0.3 * (w * (1 - l) + l * (1 - w)).log(), rtol=1e-13)
    assert (asft >= orpo).all()


def test_asft_without_likelihood_is_the_formula_chosen_and_not_rejected() -> None:
    """The node cUnl of the logic of direct alignment: -log[p_w (1 - p_l)]."""
    losses, _ = asft_loss(CHOSEN, REJECTED, odds_weight=1.0)
    expected = -(CHOSEN.exp() * (1 - REJECTED.exp())).log()
    assert torch.allclose(losses + CHOSEN, expected, rtol=1e-14)


def test_each_response_is_pulled_on_its_own() -> None:
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    asft_loss(chosen, rejected, odds_weight=0.3)[0].sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-1.3] * 3, rel=1e-13)
    assert torch.allclose(rejected.grad, 0.3 * REJECTED.exp() / (1 - REJECTED.exp()), rtol=1e-13)
