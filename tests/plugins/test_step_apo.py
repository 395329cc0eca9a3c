"""Step-level advantage preference optimisation."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.modpo import modpo_loss
from mmalign_objectives.pairs.step_apo import step_apo_loss

BETTER = torch.tensor([0.7, 0.1, 0.5], dtype=torch.float64)
WORSE = torch.tensor([0.2, 0.4, 0.1], dtype=torch.float64)


def loss_of(pairs: Tensor, chosen: Tensor = BETTER, rejected: Tensor = WORSE) -> Tensor:
    return step_apo_loss(*pairs.unbind(1), chosen, rejected, beta=0.3)[0]


def test_step_apo_by_hand() -> None:
    """Margin 2 at beta 0.75 less a gap of 0.5: 1."""
    loss, _ = step_apo_loss(*PAIRS[:1].unbind(1), BETTER[:1], WORSE[:1], beta=0.75)
    assert loss.item() == pytest.approx(0.3132616875182228, rel=1e-14)


def test_step_apo_agrees_with_a_longhand_reference() -> None:
    rows = zip(margins(PAIRS).tolist(), BETTER.tolist(), WORSE.tolist(), strict=True)
    for (margin, better, worse), loss in zip(rows, loss_of(PAIRS), strict=True):
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-(0.3 * margin - better + worse))), rel=1e-14)


def test_equal_values_are_dpo() -> None:
    dpo, _ = dpo_loss(*PAIRS.unbind(1), beta=0.3, label_smoothing=0.0)
    assert torch.equal(loss_of(PAIRS, BETTER, BETTER), dpo)


def test_the_gradient_grows_with_the_advantage_gap() -> None:
    """Its weight is sigmoid(V_w - V_l - beta margin)."""
    gradient = gradient_of(loss_of, PAIRS)[:, 0]
    assert torch.allclose(gradient, -0.3 * torch.sigmoid(BETTER - WORSE - 0.3 * margins(PAIRS)), rtol=1e-13)
    wider = gradient_of(lambda pairs: loss_of(pairs, BETTER + 1), PAIRS)[:, 0]
    assert (wider < gradient).all()


def test_step_apo_is_modpo_with_one_margin_of_the_same_weight_as_the_labels() -> None:
    """MODPO divides by the weight of the labels: at 1/2 each, beta / 2 and the same gap."""
    columns = BETTER[:, None], WORSE[:, None]
    modpo, _ = modpo_loss(*PAIRS.unbind(1), *columns, beta=0.15, margin_weights=(0.5,), link="logistic")
    assert torch.allclose(loss_of(PAIRS), modpo, rtol=1e-14)
