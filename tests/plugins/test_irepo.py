"""Implicit reward pairwise difference regression."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.irepo import irepo_loss

SHARES = torch.tensor([0.8, 0.5, 0.3], dtype=torch.float64)
SWAPPED = PAIRS[:, [1, 0, 3, 2]]


def loss_of(pairs: Tensor, shares: Tensor = SHARES, clip: float = 0.05) -> Tensor:
    return irepo_loss(*pairs.unbind(1), shares, beta=0.3, clip=clip)[0]


def test_irepo_by_hand() -> None:
    """Margin 2 at beta 0.5 is 1; a preference of 1/2 asks for 0."""
    loss, _ = irepo_loss(*PAIRS[:1].unbind(1), torch.tensor([0.5], dtype=torch.float64), beta=0.5, clip=0.05)
    assert loss.item() == 1.0


def test_irepo_agrees_with_a_longhand_reference() -> None:
    for margin, share, loss in zip(margins(PAIRS).tolist(), SHARES.tolist(), loss_of(PAIRS), strict=True):
        assert loss.item() == pytest.approx((0.3 * margin - math.log(share / (1 - share))) ** 2, rel=1e-12)


def test_an_even_preference_pulls_the_margin_to_0() -> None:
    even = torch.full((3,), 0.5, dtype=torch.float64)
    assert torch.allclose(loss_of(PAIRS, even), (0.3 * margins(PAIRS)) ** 2, rtol=1e-14)


def test_it_does_not_matter_which_response_is_called_chosen() -> None:
    assert torch.allclose(loss_of(SWAPPED, 1 - SHARES), loss_of(PAIRS), rtol=1e-13)


def test_its_fixed_point_is_that_of_dpo_with_soft_labels() -> None:
    """Zero gradient where sigmoid(beta margin) is the preference."""
    pairs = torch.zeros(3, 4, dtype=torch.float64)
    pairs[:, 0] = SHARES.logit() / 0.3
    gradient = gradient_of(loss_of, pairs)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-14)
    soft = gradient_of(lambda values: dpo_loss(*values[:1].unbind(1), beta=0.3, label_smoothing=0.2)[0], pairs)
    assert torch.allclose(soft, torch.zeros_like(soft), atol=1e-15)


def test_a_certain_preference_is_clipped() -> None:
    certain = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.95, 0.05, 0.95], dtype=torch.float64)
    assert torch.equal(loss_of(PAIRS, certain), loss_of(PAIRS, expected))
