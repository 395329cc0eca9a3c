"""CPO."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mmalign_objectives.pairs.cpo import cpo_loss
from mmalign_objectives.pairs.dpo import dpo_loss

CHOSEN = torch.tensor([-8.0, -6.0], dtype=torch.float64)
REJECTED = torch.tensor([-10.0, -3.0], dtype=torch.float64)
CHOSEN_MEAN = CHOSEN / torch.tensor([4.0, 3.0])


def options(
    nll_weight: float, label_smoothing: float = 0.0, link: str = "logistic", alpha: float = 0.0
) -> dict[str, Any]:
    weights = {"nll_weight": nll_weight, "label_smoothing": label_smoothing}
    return {"beta": 0.5, **weights, "link": link, "alpha": alpha}


def loss_of(nll_weight: float, label_smoothing: float = 0.0) -> torch.Tensor:
    return cpo_loss(CHOSEN, REJECTED, CHOSEN_MEAN, **options(nll_weight, label_smoothing))[0]


def test_cpo_loss_by_hand() -> None:
    """Margin 2 x 0.5 = 1: ln(1 + exp(-1)) = 0.3132616875182228; 8 nats on 4 steps add 2."""
    assert loss_of(1.0)[0].item() == pytest.approx(2.3132616875182228, rel=1e-15)


def test_cpo_agrees_with_a_longhand_reference() -> None:
    for chosen, rejected, mean, loss in zip(CHOSEN, REJECTED, CHOSEN_MEAN, loss_of(0.3, 0.2), strict=True):
        margin = 0.5 * (chosen.item() - rejected.item())
        preference = 0.8 * math.log1p(math.exp(-margin)) + 0.2 * math.log1p(math.exp(margin))
        assert loss.item() == pytest.approx(preference - 0.3 * mean.item(), rel=1e-14)


def test_cpo_without_likelihood_is_dpo_with_an_indifferent_reference() -> None:
    same = torch.full_like(CHOSEN, -5.0)
    dpo, _ = dpo_loss(CHOSEN, REJECTED, same, same, beta=0.5, label_smoothing=0.0)
    assert torch.allclose(loss_of(0.0), dpo, rtol=1e-14)


def test_the_likelihood_term_only_pulls_the_chosen_response_up() -> None:
    mean, rejected = CHOSEN_MEAN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    losses, _ = cpo_loss(CHOSEN, rejected, mean, **options(0.7))
    losses.sum().backward()
    assert mean.grad.tolist() == [-0.7, -0.7]
    assert (rejected.grad > 0).all()


def test_cpo_with_a_hinge_teaches_until_the_margin_is_1() -> None:
    """Margins 2 and -3 at beta 0.5: 1 - 1 and 1 + 1.5; no likelihood term."""
    losses, _ = cpo_loss(CHOSEN, REJECTED, CHOSEN_MEAN, **options(0.0, link="hinge"))
    assert losses.tolist() == [0.0, 2.5]


def test_cpo_with_a_bent_reward_tends_to_the_plain_one() -> None:
    bent = [cpo_loss(CHOSEN, REJECTED, CHOSEN_MEAN, **options(0.3, alpha=alpha))[0] for alpha in (1e-9, 0.2)]
    assert torch.allclose(bent[0], loss_of(0.3), rtol=1e-7)
    for chosen, rejected, mean, loss in zip(CHOSEN, REJECTED, CHOSEN_MEAN, bent[1], strict=True):
        rewards = [(1 - math.exp(-0.2 * one.item())) / 0.2 for one in (chosen, rejected)]
        expected = math.log1p(math.exp(-0.5 * (rewards[0] - rewards[1]))) - 0.3 * mean.item()
        assert loss.item() == pytest.approx(expected, rel=1e-13)
