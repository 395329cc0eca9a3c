"""MCTS-DPO."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import AT_THE_REFERENCE, PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.mcts_dpo import mcts_dpo_loss


def loss_of(pairs: Tensor, chosen: list[float], rejected: list[float]) -> Tensor:
    counts = (torch.tensor(one, dtype=torch.float64) for one in (chosen, rejected))
    return mcts_dpo_loss(*pairs.unbind(1), *counts, beta=0.5)[0]


def test_mcts_dpo_by_hand() -> None:
    """Margin 1; 3 visits against 1: smoothing 1/4, which adds a quarter of the margin."""
    assert loss_of(PAIRS[:1], [3], [1]).item() == pytest.approx(0.3132616875182228 + 0.25, rel=1e-14)


def test_mcts_dpo_agrees_with_a_longhand_reference() -> None:
    """Also where the rejected step was visited more (1/2), and where the chosen one was never visited (as if once)."""
    chosen, rejected = [12, 2, 0], [3, 7, 1]
    for margin, won, lost, loss in zip(
        margins(PAIRS).tolist(), chosen, rejected, loss_of(PAIRS, chosen, rejected), strict=True
    ):
        a = min(1 - 1 / (1 + lost / max(1, won)), 0.5)
        right, wrong = math.log(1 + math.exp(-0.5 * margin)), math.log(1 + math.exp(0.5 * margin))
        assert loss.item() == pytest.approx((1 - a) * right + a * wrong, rel=1e-13)


def test_smoothing_is_the_share_of_the_visits() -> None:
    counts = torch.tensor([12.0, 5.0, 4.0]), torch.tensor([3.0, 7.0, 4.0])
    _, metrics = mcts_dpo_loss(*PAIRS.unbind(1), *counts, beta=0.5)
    assert metrics["label_smoothing"].tolist() == pytest.approx([0.2, 0.5, 0.5], rel=1e-6)


def test_an_unvisited_rejected_step_is_dpo() -> None:
    dpo, _ = dpo_loss(*PAIRS.unbind(1), beta=0.5, label_smoothing=0.0)
    assert torch.equal(loss_of(PAIRS, [3, 1, 0], [0, 0, 0]), dpo)


def test_equal_visits_are_even_in_the_margin_and_pull_nowhere_at_0() -> None:
    visits = [4.0, 4.0, 4.0]
    swapped = PAIRS[:, [1, 0, 3, 2]]
    assert torch.allclose(loss_of(PAIRS, visits, visits), loss_of(swapped, visits, visits), rtol=1e-14)
    gradient = gradient_of(lambda pairs: loss_of(pairs, visits, visits), AT_THE_REFERENCE)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-16)
