"""Preferences with rationales."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.orpo import orpo_loss
from mmalign_objectives.pairs.rationale_dpo import rationale_dpo_loss, rationale_loss, rationale_orpo_loss

RATIONALE = torch.tensor([-2.0, -15.0, -8.0], dtype=torch.float64)
DPO = dpo_loss(*PAIRS.unbind(1), beta=0.5, label_smoothing=0.0)[0]


def loss_of(rationale: Tensor = RATIONALE, gamma: float = 0.5, bounded: bool = False) -> Tensor:
    return rationale_dpo_loss(*PAIRS.unbind(1), rationale, beta=0.5, gamma=gamma, bounded=bounded)[0]


def test_rationale_dpo_by_hand() -> None:
    """Margin 1; -2 nats at weight 0.5 add 1, or ln(1 + e)."""
    assert loss_of()[0].item() == pytest.approx(0.3132616875182228 + 1, rel=1e-14)
    assert loss_of(bounded=True)[0].item() == pytest.approx(0.3132616875182228 + 1.3132616875182228, rel=1e-14)


def test_rationale_dpo_agrees_with_a_longhand_reference() -> None:
    for rationale, base, paper, code in zip(
        RATIONALE.tolist(), DPO.tolist(), loss_of(gamma=0.3), loss_of(gamma=0.3, bounded=True), strict=True
    ):
        assert paper.item() == pytest.approx(base - 0.3 * rationale, rel=1e-14)
        assert code.item() == pytest.approx(base + math.log(1 + math.exp(-0.3 * rationale)), rel=1e-13)


def test_without_weight_the_form_of_the_paper_is_dpo_and_that_of_the_code_adds_ln_2() -> None:
    assert torch.equal(loss_of(gamma=0.0), DPO)
    assert torch.allclose(loss_of(gamma=0.0, bounded=True), DPO + math.log(2), rtol=1e-14)


def test_both_forms_pull_alike_at_an_unlikely_rationale() -> None:
    gradients = []
    for bounded in (False, True):
        rationale = torch.full((3,), -200.0, dtype=torch.float64, requires_grad=True)
        loss_of(rationale, bounded=bounded).sum().backward()
        gradients.append(rationale.grad)
    assert torch.allclose(*gradients, rtol=1e-12)
    assert (gradients[0] == -0.5).all()


def test_rationale_orpo_is_orpo_and_the_rationale() -> None:
    means = PAIRS[:, 0] / 9, PAIRS[:, 1] / 8
    losses, _ = rationale_orpo_loss(*means, RATIONALE, odds_weight=0.3, gamma=0.7)
    orpo, _ = orpo_loss(*means, odds_weight=0.3)
    assert torch.allclose(losses, orpo - 0.7 * RATIONALE, rtol=1e-14)


@pytest.mark.parametrize("bounded", [False, True])
def test_the_term_of_the_rationale_alone_added_to_dpo_is_rationale_dpo(bounded: bool) -> None:
    alone, metrics = rationale_loss(RATIONALE, gamma=0.5, bounded=bounded)
    assert torch.allclose(DPO + alone, loss_of(bounded=bounded), rtol=1e-14)
    assert metrics == {}


def test_the_term_of_the_rationale_by_hand() -> None:
    assert rationale_loss(RATIONALE, gamma=0.5, bounded=False)[0].tolist() == [1.0, 7.5, 4.0]
    assert rationale_loss(RATIONALE, gamma=0.0, bounded=True)[0].tolist() == pytest.approx([math.log(2)] * 3)
