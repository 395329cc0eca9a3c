"""Anchored preference optimisation."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import AT_THE_REFERENCE, PAIRS, gradient_of, log_ratios
from torch import Tensor

from mmalign_objectives.pairs.apo import apo_down_loss, apo_zero_loss
from mmalign_objectives.unpaired.kto import kto_loss


def zero(pairs: Tensor, beta: float = 0.5) -> Tensor:
    return apo_zero_loss(*pairs.unbind(1), beta=beta)[0]


def down(pairs: Tensor, beta: float = 0.5) -> Tensor:
    return apo_down_loss(*pairs.unbind(1), beta=beta)[0]


def test_apo_by_hand() -> None:
    """Log-ratios 1 and -1 at beta 1: 2 sigmoid(-1) and sigmoid(1) + sigmoid(-2)."""
    assert zero(PAIRS[:1], beta=1.0).item() == pytest.approx(2 * 0.2689414213699951, rel=1e-15)
    assert down(PAIRS[:1], beta=1.0).item() == pytest.approx(0.7310585786300049 + 0.11920292202211755, rel=1e-15)


def test_apo_agrees_with_a_longhand_reference() -> None:
    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    for chosen, rejected, first, second in zip(*log_ratios(PAIRS), zero(PAIRS), down(PAIRS), strict=True):
        c, r = 0.5 * chosen.item(), 0.5 * rejected.item()
        assert first.item() == pytest.approx(1 - sigmoid(c) + sigmoid(r), rel=1e-14)
        assert second.item() == pytest.approx(sigmoid(c) + 1 - sigmoid(c - r), rel=1e-14)


@pytest.mark.parametrize("loss", [zero, down])
def test_apo_is_1_where_the_policy_is_the_reference(loss) -> None:
    assert loss(AT_THE_REFERENCE).tolist() == pytest.approx([1.0] * 3, rel=1e-15)


def test_apo_zero_is_kto_of_both_responses_at_reference_point_zero() -> None:
    policy, reference = PAIRS[:, :2].flatten(), PAIRS[:, 2:].flatten()
    labels, point = torch.tensor([1.0, 0.0]).repeat(3).double(), torch.tensor(0.0, dtype=torch.float64)
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    losses, _ = kto_loss(policy, reference, labels, point, beta=0.5, **weights)
    assert torch.allclose(zero(PAIRS), losses.reshape(3, 2).sum(dim=1), rtol=1e-14)


def test_apo_zero_raises_chosen_and_apo_down_lowers_both() -> None:
    """At the reference: slopes of 1/4 beta each; the margin adds as much to what `down` does to the rejected one."""
    assert gradient_of(zero, AT_THE_REFERENCE)[0, :2].tolist() == [-0.125, 0.125]
    assert gradient_of(down, AT_THE_REFERENCE)[0, :2].tolist() == [0.0, 0.125]
    above = AT_THE_REFERENCE + torch.tensor([0.0, -3.0, 0.0, 0.0])
    assert (gradient_of(down, above)[:, :2] > 0).all()
