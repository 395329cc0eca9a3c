"""DiscoPOP."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import AT_THE_REFERENCE, PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.discopop import discopop_loss


def loss_of(pairs: Tensor, beta: float = 0.3, temperature: float = 0.05) -> Tensor:
    return discopop_loss(*pairs.unbind(1), beta=beta, temperature=temperature)[0]


def test_discopop_by_hand() -> None:
    """At margin 0 half of each form: (ln 2 + 1) / 2."""
    assert loss_of(AT_THE_REFERENCE).tolist() == pytest.approx([(math.log(2) + 1) / 2] * 3, rel=1e-15)


@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_discopop_agrees_with_a_longhand_reference(temperature: float) -> None:
    for margin, loss in zip(margins(PAIRS).tolist(), loss_of(PAIRS, temperature=temperature), strict=True):
        u = 0.3 * margin
        w = 1 / (1 + math.exp(-u / temperature))
        assert loss.item() == pytest.approx((1 - w) * math.log(1 + math.exp(-u)) + w * math.exp(-u), rel=1e-13)


def test_discopop_has_a_local_minimum_at_a_negative_margin() -> None:
    """So it is not convex: from there the loss rises on both sides before it falls for good."""
    pairs = torch.zeros(4001, 4, dtype=torch.float64)
    pairs[:, 0] = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    losses = loss_of(pairs, beta=1.0)
    lower = (losses[1:-1] < losses[:-2]) & (losses[1:-1] < losses[2:])
    assert (pairs[1:-1, 0][lower] < 0).any()


def test_the_gradient_flows_through_the_gate() -> None:
    """At margin 0: d/du of (1 - w) s(-u) + w e^-u = -(1/2)(1/2) - 1/2 + w' (1 - ln 2), w' = 1 / (4 tau)."""
    gradient = gradient_of(lambda pairs: loss_of(pairs, temperature=0.5), AT_THE_REFERENCE)
    expected = 0.3 * (-0.75 + (1 - math.log(2)) / (4 * 0.5))
    assert gradient[:, 0].tolist() == pytest.approx([expected] * 3, rel=1e-13)


def test_extreme_margins_give_finite_losses_and_gradients() -> None:
    pairs = torch.tensor([[-1e4, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0]])
    assert loss_of(pairs, beta=1.0).tolist() == [1e4, 0.0]
    assert torch.isfinite(gradient_of(lambda values: loss_of(values, beta=1.0), pairs)).all()
