"""NCA on pairs."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import AT_THE_REFERENCE, PAIRS, gradient_of, log_ratios
from torch import Tensor

from mmalign_objectives.pairs.nca_pair import nca_pair_loss


def loss_of(pairs: Tensor, beta: float = 0.5) -> Tensor:
    return nca_pair_loss(*pairs.unbind(1), beta=beta)[0]


def test_nca_pair_by_hand() -> None:
    """Log-ratios 1 and -1 at beta 1: 1.5 softplus(-1) + 0.5 softplus(1) = 2 x 0.3132616875182228 + 0.5."""
    assert loss_of(PAIRS[:1], beta=1.0).item() == pytest.approx(2 * 0.3132616875182228 + 0.5, rel=1e-15)


def test_nca_pair_agrees_with_a_longhand_reference() -> None:
    def softplus(value: float) -> float:
        return math.log(1 + math.exp(value))

    for chosen, rejected, loss in zip(*log_ratios(PAIRS), loss_of(PAIRS), strict=True):
        c, r = 0.5 * chosen.item(), 0.5 * rejected.item()
        assert loss.item() == pytest.approx(softplus(-c) + 0.5 * softplus(c) + 0.5 * softplus(r), rel=1e-14)


def test_nca_pair_is_2_ln_2_where_the_policy_is_the_reference() -> None:
    assert loss_of(AT_THE_REFERENCE).tolist() == pytest.approx([2 * math.log(2)] * 3, rel=1e-15)


def test_the_chosen_part_is_best_at_a_reward_of_ln_2() -> None:
    """There sigmoid(beta dc) = 2/3; below it the likelihood is pulled up, above it down."""
    pairs = torch.zeros(3, 4, dtype=torch.float64)
    pairs[:, 0] = math.log(2) / 0.5 + torch.tensor([-0.1, 0.0, 0.1], dtype=torch.float64)
    gradient = gradient_of(loss_of, pairs)
    assert gradient[1, 0].item() == pytest.approx(0, abs=1e-15)
    assert gradient[0, 0] < 0 < gradient[2, 0]


def test_rejected_responses_are_pushed_down_half_as_hard() -> None:
    gradient = gradient_of(loss_of, PAIRS)
    expected = 0.5 * 0.5 * torch.sigmoid(0.5 * log_ratios(PAIRS)[1])
    assert torch.allclose(gradient[:, 1], expected, rtol=1e-14)
