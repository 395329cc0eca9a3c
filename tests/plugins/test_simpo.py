"""SimPO."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mmalign_objectives.pairs.cpo import cpo_loss
from mmalign_objectives.pairs.simpo import AlphaPOConfig, CPOSimPOConfig, SimPOConfig, simpo_loss

CHOSEN = torch.tensor([-1.0, -0.5, -2.0], dtype=torch.float64)
REJECTED = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)


PLAIN = {"label_smoothing": 0.0, "link": "logistic", "nll_weight": 0.0, "alpha": 0.0}


def loss_of(beta: float, gamma: float, label_smoothing: float = 0.0, **options: Any) -> torch.Tensor:
    options = {**PLAIN, "label_smoothing": label_smoothing, **options}
    return simpo_loss(CHOSEN, REJECTED, beta=beta, gamma=gamma, **options)[0]


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
    cpo, _ = cpo_loss(CHOSEN * length, REJECTED * length, CHOSEN, beta=beta / length, **PLAIN)
    assert torch.allclose(loss_of(beta, 0.0), cpo, rtol=1e-14)


def test_simpo_margins_in_the_metrics_are_without_gamma() -> None:
    _, metrics = simpo_loss(CHOSEN, REJECTED, beta=2.0, gamma=1.0, **PLAIN)
    assert metrics["reward_margins"].tolist() == [1.0, 0.0, -2.0]


def test_a_larger_gamma_costs_more_and_pulls_harder() -> None:
    chosen = CHOSEN.clone().requires_grad_()
    gradients = []
    for gamma in (0.0, 1.0):
        losses, _ = simpo_loss(chosen, REJECTED, beta=2.0, gamma=gamma, **PLAIN)
        gradients.append(torch.autograd.grad(losses.sum(), chosen)[0])
    assert (gradients[1] < gradients[0]).all()
    assert (gradients[0] < 0).all()


def test_simpo_with_a_hinge_teaches_until_the_margin_is_1_plus_gamma() -> None:
    """Margins 1, 0 and -2 at beta 2, gamma 0.5."""
    assert loss_of(2.0, 0.5, link="hinge").tolist() == [0.5, 1.5, 3.5]


def test_a_smoothed_hinge_counts_the_opposite_label_too() -> None:
    """Margin 1 less gamma 0.5: 0.9 x 0.5 + 0.1 x 1.5."""
    assert loss_of(2.0, 0.5, 0.1, link="hinge")[0].item() == pytest.approx(0.6, rel=1e-15)


def test_the_likelihood_term_is_added() -> None:
    assert torch.allclose(loss_of(2.0, 1.0, nll_weight=0.7) - loss_of(2.0, 1.0), -0.7 * CHOSEN, rtol=1e-14)


@pytest.mark.parametrize("alpha", [-0.3, 0.25])
def test_alpha_po_agrees_with_a_longhand_reference_and_tends_to_simpo(alpha: float) -> None:
    assert torch.allclose(loss_of(2.0, 1.0, alpha=alpha * 1e-8), loss_of(2.0, 1.0), rtol=1e-7)
    for chosen, rejected, loss in zip(CHOSEN.tolist(), REJECTED.tolist(), loss_of(2.0, 1.0, alpha=alpha), strict=True):
        rewards = [2.0 * (1 - math.exp(-alpha * one)) / alpha for one in (chosen, rejected)]
        assert loss.item() == pytest.approx(math.log1p(math.exp(1.0 - rewards[0] + rewards[1])), rel=1e-13)


def test_presets_differ_in_one_option() -> None:
    plain, bent, cloned = SimPOConfig(), AlphaPOConfig(), CPOSimPOConfig()
    assert (plain.alpha, bent.alpha) == (0.0, 0.25)
    assert (plain.nll_weight, cloned.nll_weight) == (0.0, 1.0)
