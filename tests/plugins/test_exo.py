"""EXO."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.exo import exo_loss


def loss_of(pairs: Tensor, label_smoothing: float = 0.1, beta: float = 0.3) -> Tensor:
    return exo_loss(*pairs.unbind(1), beta=beta, label_smoothing=label_smoothing)[0]


def test_exo_by_hand() -> None:
    """At margin 0 the policy says 1/2: ln(1/2) - (ln 0.9 + ln 0.1) / 2 = 0.5108256237659907."""
    assert loss_of(torch.zeros(1, 4).double()).item() == pytest.approx(0.5108256237659907, rel=1e-15)


def test_exo_agrees_with_a_longhand_reference() -> None:
    for margin, loss in zip(margins(PAIRS).tolist(), loss_of(PAIRS), strict=True):
        q = 1 / (1 + math.exp(-0.3 * margin))
        assert loss.item() == pytest.approx(q * math.log(q / 0.9) + (1 - q) * math.log((1 - q) / 0.1), rel=1e-13)


def test_exo_is_zero_only_where_the_policy_agrees_with_the_labels() -> None:
    pairs = torch.zeros(3, 4, dtype=torch.float64)
    pairs[:, 0] = math.log(9) / 0.3 + torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)
    losses = loss_of(pairs)
    assert losses[1].item() == pytest.approx(0, abs=1e-15)
    assert (losses[[0, 2]] > 0).all()
    assert (loss_of(torch.randn(200, 4, dtype=torch.float64) * 20) >= 0).all()


def test_conservative_dpo_is_the_forward_kl_plus_the_entropy_of_the_labels() -> None:
    entropy = -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    smoothed, _ = dpo_loss(*PAIRS.unbind(1), beta=0.3, label_smoothing=0.1)
    for margin, loss in zip(margins(PAIRS).tolist(), smoothed, strict=True):
        q = 1 / (1 + math.exp(-0.3 * margin))
        forward = 0.9 * math.log(0.9 / q) + 0.1 * math.log(0.1 / (1 - q))
        assert loss.item() - entropy == pytest.approx(forward, rel=1e-12)


def test_exo_pulls_back_beyond_its_optimum() -> None:
    pairs = torch.zeros(2, 4, dtype=torch.float64)
    pairs[:, 0] = math.log(9) / 0.3 + torch.tensor([-1.0, 1.0], dtype=torch.float64)
    gradient = gradient_of(loss_of, pairs)
    assert gradient[0, 0] < 0 < gradient[1, 0]
