"""Triple preference optimisation."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS
from torch import Tensor

from mmalign_objectives.pairs.cpo import cpo_loss
from mmalign_objectives.pairs.simpo import simpo_loss
from mmalign_objectives.pairs.tpo_triple import tpo_triple_l_loss, tpo_triple_loss

CHOSEN, REJECTED = PAIRS[:, 0], PAIRS[:, 1]
GOLD = torch.tensor([-1.5, -0.5, -2.0], dtype=torch.float64)
PLAIN = {"label_smoothing": 0.0, "link": "logistic", "alpha": 0.0}


def summed(gold: Tensor = GOLD, weight: float = 0.9, link: str = "logistic") -> Tensor:
    return tpo_triple_loss(CHOSEN, REJECTED, gold, beta=0.5, gold_weight=weight, link=link)[0]


def averaged(gold: Tensor = GOLD, weight: float = 0.9) -> Tensor:
    means = CHOSEN / 4, REJECTED / 5
    return tpo_triple_l_loss(*means, gold, beta=2.0, gamma=0.5, gold_weight=weight, link="logistic")[0]


def test_tpo_by_hand() -> None:
    """Margin 2 at beta 0.5 is 1; 1.5 nats a step at weight 0.9 add 1.35."""
    assert summed()[0].item() == pytest.approx(0.3132616875182228 + 1.35, rel=1e-14)
    assert summed(link="hinge")[0].item() == pytest.approx(1.35, rel=1e-14)


def test_tpo_agrees_with_a_longhand_reference() -> None:
    rows = zip(CHOSEN.tolist(), REJECTED.tolist(), GOLD.tolist(), summed(), averaged(), strict=True)
    for chosen, rejected, gold, total, mean in rows:
        assert total.item() == pytest.approx(math.log1p(math.exp(-0.5 * (chosen - rejected))) - 0.9 * gold, rel=1e-13)
        margin = 2.0 * (chosen / 4 - rejected / 5) - 0.5
        assert mean.item() == pytest.approx(math.log1p(math.exp(-margin)) - 0.9 * gold, rel=1e-13)


def test_without_gold_tpo_is_the_preference_term_of_cpo_and_tpo_l_is_simpo() -> None:
    cpo, _ = cpo_loss(CHOSEN, REJECTED, GOLD, beta=0.5, nll_weight=0.0, **PLAIN)
    simpo, _ = simpo_loss(CHOSEN / 4, REJECTED / 5, beta=2.0, gamma=0.5, nll_weight=0.0, **PLAIN)
    assert torch.equal(summed(weight=0.0), cpo)
    assert torch.equal(averaged(weight=0.0), simpo)


def test_where_the_chosen_response_is_the_gold_one_tpo_is_cpo() -> None:
    cpo, _ = cpo_loss(CHOSEN, REJECTED, CHOSEN / 4, beta=0.5, nll_weight=0.9, **PLAIN)
    assert torch.equal(summed(CHOSEN / 4), cpo)


def test_the_gold_response_is_lifted_whatever_the_preference_says() -> None:
    gold = GOLD.clone().requires_grad_()
    (summed(gold).sum() + averaged(gold).sum()).backward()
    assert gold.grad.tolist() == pytest.approx([-1.8] * 3, rel=1e-14)
