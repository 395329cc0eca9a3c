"""Supervised fine-tuning."""

from __future__ import annotations

import pytest
import torch

from mmalign_objectives.supervised.sft import sft_loss


def test_sft_loss_by_hand() -> None:
    """Steps of probability 1/2 and 1/4 cost ln 2 and ln 4 nats."""
    losses, metrics = sft_loss(torch.tensor([[0.5, 0.25]], dtype=torch.float64).log())
    assert losses[0].tolist() == pytest.approx([0.6931471805599453, 1.3862943611198906], rel=1e-15)
    assert not metrics


def test_sft_gradient_raises_every_log_prob_alike() -> None:
    logps = torch.tensor([[-1.0, -3.0]], requires_grad=True)
    sft_loss(logps)[0].sum().backward()
    assert logps.grad.tolist() == [[-1.0, -1.0]]


def test_sft_refuses_sequence_log_probs() -> None:
    with pytest.raises(ValueError, match="policy_logps: expected 2 dimension"):
        sft_loss(torch.zeros(3))
