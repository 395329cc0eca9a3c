"""Sequence likelihood calibration."""

from __future__ import annotations

import pytest
import torch

from mmalign_objectives.pairs.slic_hf import slic_hf_loss

CHOSEN = torch.tensor([-4.0, -4.0, -4.0], dtype=torch.float64)
REJECTED = torch.tensor([-4.5, -5.0, -3.0], dtype=torch.float64)


def test_slic_hf_loss_by_hand() -> None:
    """Margins 0.5, 1 and -1 with delta 1: hinges 0.5, 0 and 2; the likelihood term adds 0.1 x 4."""
    losses, _ = slic_hf_loss(CHOSEN, REJECTED, delta=1.0, nll_weight=0.1)
    assert losses.tolist() == pytest.approx([0.9, 0.4, 2.4], rel=1e-15)


def test_slic_hf_is_zero_where_the_margin_is_reached_and_no_likelihood_is_asked_for() -> None:
    losses, _ = slic_hf_loss(CHOSEN, REJECTED, delta=0.5, nll_weight=0.0)
    assert losses.tolist() == [0.0, 0.0, 1.5]


def test_slic_hf_gradient_keeps_the_likelihood_term_beyond_the_margin() -> None:
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    slic_hf_loss(chosen, rejected, delta=1.0, nll_weight=0.25)[0].sum().backward()
    assert chosen.grad.tolist() == [-1.25, -0.25, -1.25]
    assert rejected.grad.tolist() == [1.0, 0.0, 1.0]


def test_slic_hf_metrics_rank_by_log_prob() -> None:
    _, metrics = slic_hf_loss(CHOSEN, REJECTED, delta=1.0, nll_weight=0.1)
    assert metrics["reward_accuracies"].tolist() == [1.0, 1.0, 0.0]
