"""Hinge on the reference-normalised margin."""

from __future__ import annotations

import pytest
import torch

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.hinge import hinge_loss

PAIRS = torch.tensor([[-10.0, -12.0, -11.0, -11.0], [-5.0, -3.0, -4.5, -6.0]], dtype=torch.float64)


def test_hinge_loss_by_hand() -> None:
    """Margins 2 and -3.5, beta 0.25: 1 - 0.5 and 1 + 0.875."""
    assert hinge_loss(*PAIRS.unbind(1), beta=0.25)[0].tolist() == [0.5, 1.875]


def test_hinge_gradient_is_exactly_zero_once_the_margin_is_reached() -> None:
    """Beta 0.1 asks for a margin of 10: below, at and above it."""
    chosen = torch.tensor([9.0, 10.0, 11.0], dtype=torch.float64).requires_grad_()
    zeros = torch.zeros(3).double()
    losses, _ = hinge_loss(chosen, zeros, zeros, zeros, beta=0.1)
    losses.sum().backward()
    assert losses.tolist() == pytest.approx([0.1, 0.0, 0.0], abs=1e-15)
    assert chosen.grad.tolist() == [-0.1, 0.0, 0.0]


def test_hinge_ranks_pairs_as_dpo_does() -> None:
    _, hinge_metrics = hinge_loss(*PAIRS.unbind(1), beta=0.25)
    _, dpo_metrics = dpo_loss(*PAIRS.unbind(1), beta=0.25, label_smoothing=0.0)
    assert hinge_metrics.keys() == dpo_metrics.keys()
    assert all(torch.equal(hinge_metrics[name], dpo_metrics[name]) for name in dpo_metrics)
