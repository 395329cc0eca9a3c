"""IPO on means and on sums."""

from __future__ import annotations

import pytest
import torch

from mmalign.contract.binding import needs_of
from mmalign.plugins.registry import load_registry
from mmalign_objectives.pairs.ipo import ipo_loss

PAIRS = torch.tensor(
    [[-2.0, -4.0, -3.0, -3.5], [-1.0, -1.0, -1.0, -1.0], [-6.0, -2.0, -5.0, -3.0]], dtype=torch.float64
)


def test_ipo_loss_by_hand() -> None:
    """Log-ratios 1 and -0.5, margin 1.5, target 1 / (2 x 0.25) = 2: (1.5 - 2)^2 = 0.25."""
    assert ipo_loss(*PAIRS[:1].unbind(1), tau=0.25)[0].item() == 0.25


def test_ipo_agrees_with_a_longhand_reference() -> None:
    losses = ipo_loss(*PAIRS.unbind(1), tau=0.1)[0].tolist()
    for (pc, pr, rc, rr), loss in zip(PAIRS.tolist(), losses, strict=True):
        assert loss == pytest.approx((pc - rc - pr + rr - 5.0) ** 2, rel=1e-14)


def test_ipo_gradient_vanishes_at_the_target_and_pulls_back_beyond() -> None:
    """Target 5 at tau 0.1: margins 4, 5 and 6."""
    chosen = torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64).requires_grad_()
    zeros = torch.zeros(3).double()
    ipo_loss(chosen, zeros, zeros, zeros, tau=0.1)[0].sum().backward()
    assert chosen.grad.tolist() == [-2.0, 0.0, 2.0]


def test_both_forms_are_one_loss_of_different_quantities() -> None:
    """So they are equal where every response has one step, and mean is the default."""
    registry = load_registry()
    mean, total = (registry.find("objective", name, "objective").spec for name in ("ipo", "ipo_sum"))
    assert mean.loss == total.loss
    assert [name.replace("_mean_", "_sequence_") for name in needs_of(mean)] == list(needs_of(total))
    assert registry.find("objective", "ipo_mean", "objective").spec is mean


def test_ipo_metrics_are_tau_times_the_log_ratios() -> None:
    _, metrics = ipo_loss(*PAIRS.unbind(1), tau=0.1)
    assert metrics["reward_margins"].tolist() == pytest.approx([0.15, 0.0, -0.2])
    assert metrics["reward_accuracies"].tolist() == [1.0, 0.5, 0.0]
