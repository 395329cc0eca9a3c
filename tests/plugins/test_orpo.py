"""ORPO and the log-odds it is made of."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.pairs.orpo import orpo_loss
from mmalign_objectives.support.odds import log_odds

CHOSEN = torch.tensor([0.5, 0.9, 0.2], dtype=torch.float64).log()
REJECTED = torch.tensor([0.5, 0.1, 0.6], dtype=torch.float64).log()


def test_orpo_loss_by_hand() -> None:
    """Probability 1/2 against 1/2: odds ratio 1, so ln 2 of likelihood and 0.1 ln 2 of odds."""
    losses, _ = orpo_loss(CHOSEN, REJECTED, odds_weight=0.1)
    assert losses[0].item() == pytest.approx(1.1 * math.log(2), rel=1e-15)


def test_orpo_agrees_with_a_longhand_reference() -> None:
    """The second pair has odds 9 against 1/9: ratio 81, sigmoid 81/82."""
    losses, _ = orpo_loss(CHOSEN, REJECTED, odds_weight=0.25)
    assert losses[1].item() == pytest.approx(-math.log(0.9) - 0.25 * math.log(81 / 82), rel=1e-13)
    assert losses[2].item() == pytest.approx(-math.log(0.2) - 0.25 * math.log(1 / 7), rel=1e-13)


def test_the_odds_term_stays_below_that_of_asft() -> None:
    """ASFT penalises both odds apart; the difference is -log(p_w (1 - p_l) + p_l (1 - p_w)), never negative."""
    odds_term = orpo_loss(CHOSEN, REJECTED, odds_weight=1.0)[0] + CHOSEN
    better, worse = CHOSEN.exp(), REJECTED.exp()
    asft = -better.log() - (1 - worse).log()
    difference = -(better * (1 - worse) + worse * (1 - better)).log()
    assert torch.allclose(asft - odds_term, difference, atol=1e-14)
    assert (difference >= 0).all()


@pytest.mark.parametrize("mean_logp", [-1e-12, -1e-6, -0.5, -math.log(2), -0.7, -5.0, -40.0, -700.0])
def test_log_odds_are_accurate_from_certain_to_impossible(mean_logp: float) -> None:
    got = log_odds(torch.tensor(mean_logp, dtype=torch.float64)).item()
    p, q = math.exp(mean_logp), -math.expm1(mean_logp)
    assert got == pytest.approx(mean_logp - (math.log(q) if p > 0.5 else math.log1p(-p)), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("mean_logp", [0.0, -1e-30, -1e-8, -1.0, -200.0])
def test_orpo_is_finite_with_finite_gradient_at_the_ends_in_float32(mean_logp: float) -> None:
    chosen = torch.tensor([mean_logp], requires_grad=True)
    rejected = torch.tensor([mean_logp], requires_grad=True)
    losses, _ = orpo_loss(chosen, rejected, odds_weight=0.1)
    losses.sum().backward()
    assert torch.isfinite(torch.stack([losses, chosen.grad, rejected.grad])).all()


def test_orpo_gradient_lifts_chosen_and_lowers_rejected() -> None:
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    orpo_loss(chosen, rejected, odds_weight=0.1)[0].sum().backward()
    assert (chosen.grad < -1).all()
    assert (rejected.grad > 0).all()
