"""Provably robust DPO."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.robust_dpo import robust_dpo_loss

SWAPPED = PAIRS[:, [1, 0, 3, 2]]


def loss_of(pairs: Tensor, flip_rate: float = 0.1, beta: float = 0.3) -> Tensor:
    return robust_dpo_loss(*pairs.unbind(1), beta=beta, flip_rate=flip_rate)[0]


def dpo(pairs: Tensor) -> Tensor:
    return dpo_loss(*pairs.unbind(1), beta=0.3, label_smoothing=0.0)[0]


def test_robust_dpo_by_hand() -> None:
    """Margin 1, eps 1/4: (0.75 x 0.3132616875182228 - 0.25 x 1.3132616875182228) x 2 = 0.0632616875182228 - 0.25."""
    expected = 2 * (0.5 * 0.3132616875182228 - 0.25)
    assert loss_of(PAIRS[:1], flip_rate=0.25, beta=0.5).item() == pytest.approx(expected, rel=1e-14)


def test_robust_dpo_agrees_with_a_longhand_reference() -> None:
    for margin, loss in zip(margins(PAIRS).tolist(), loss_of(PAIRS), strict=True):
        right, wrong = math.log(1 + math.exp(-0.3 * margin)), math.log(1 + math.exp(0.3 * margin))
        assert loss.item() == pytest.approx((0.9 * right - 0.1 * wrong) / 0.8, rel=1e-13)


def test_robust_dpo_of_true_labels_is_dpo() -> None:
    assert torch.equal(loss_of(PAIRS, flip_rate=0.0), dpo(PAIRS))


def test_its_mean_over_flipped_labels_is_the_dpo_loss_of_the_true_ones() -> None:
    assert torch.allclose(0.9 * loss_of(PAIRS) + 0.1 * loss_of(SWAPPED), dpo(PAIRS), rtol=1e-13)


def test_robust_dpo_is_not_bounded_below() -> None:
    pairs = torch.tensor([[1e3, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0]], dtype=torch.float64)
    first, second = loss_of(pairs).tolist()
    assert second < first < 0


def test_robust_dpo_gradient_is_the_one_of_the_paper() -> None:
    gradient = gradient_of(loss_of, PAIRS)
    weight = torch.sigmoid(-0.3 * margins(PAIRS)) + 0.1 / 0.8
    assert torch.allclose(gradient[:, 0], -0.3 * weight, rtol=1e-13)
    assert torch.allclose(gradient[:, 1], 0.3 * weight, rtol=1e-13)
