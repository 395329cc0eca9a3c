"""SimPO."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.cpo import cpo_loss
from mmalign_objectives.simpo import simpo_loss

CHOSEN = torch.tensor([-1.0, -0.5, -2.0], dtype=torch.float64)
REJECTED = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)


def loss_of(beta: float, gamma: float, label_smoothing: float = 0.0) -> torch.Tensor:
    return simpo_loss(CHOSEN, REJECTED, beta=beta, gamma=gamma, label_smoothing=label_smoothing)[0]


def test_simpo_loss_by_hand() -> None:
    """Mean margin 0.5, beta 2, gamma 1: the argument is 0, the loss ln 2."""
    assert loss_of(2.0, 1.0)[0].item() == pytest.approx(math.log(2), rel=1e-15)


def test_simpo_agrees_with_a_longhand_reference() -> None:
    for chosen, rejected, loss in zip(CHOSEN.tolist(), REJECTED.tolist(), loss_of(2.5, 1.375, 0.1), strict=True):
        margin = 2.5 * (chosen - rejected) - 1.375
        expected = 0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin))
        assert loss.item() == pytest.approx(expected, rel=1e-13)


def test_simpo_without_gamma_on_equal_lengths_is_the_preference_term_of_cpo() -> None:
    """With L steps each, beta L-th as large there: sums are L times the means."""
    length, beta = 4, 2.0
    cpo, _ = cpo_loss(
        CHOSEN * length, REJECTED * length, CHOSEN, beta=beta / length, nll_weight=0.0, label_smoothing=0.0
    )
    assert torch.allclose(loss_of(beta, 0.0), cpo, rtol=1e-14)


def test_simpo_margins_in_the_metrics_are_without_gamma() -> None:
    _, metrics = simpo_loss(CHOSEN, REJECTED, beta=2.0, gamma=1.0, label_smoothing=0.0)
    assert metrics["reward_margins"].tolist() == [1.0, 0.0, -2.0]


def test_a_larger_gamma_costs_more_and_pulls_harder() -> None:
    chosen = CHOSEN.clone().requires_grad_()
    gradients = []
    for gamma in (0.0, 1.0):
        losses, _ = simpo_loss(chosen, REJECTED, beta=2.0, gamma=gamma, label_smoothing=0.0)
        gradients.append(torch.autograd.grad(losses.sum(), chosen)[0])
    assert (gradients[1] < gradients[0]).all()
    assert (gradients[0] < 0).all()
