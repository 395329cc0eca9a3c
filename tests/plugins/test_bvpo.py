"""BVPO and its best mix."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of
from torch import Tensor

from mmalign_objectives.pairs.bvpo import best_trace_weight, bvpo_loss
from mmalign_objectives.pairs.dpo import dpo_loss

TRACE = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)


def loss_of(pairs: Tensor, trace_weight: float, trace: Tensor = TRACE) -> Tensor:
    return bvpo_loss(*pairs.unbind(1), trace[: len(pairs)], beta=0.5, trace_weight=trace_weight)[0]


def dpo(pairs: Tensor) -> Tensor:
    return dpo_loss(*pairs.unbind(1), beta=0.5, label_smoothing=0.0)[0]


def test_bvpo_by_hand() -> None:
    """Margin 1 with a trace of weight 0.3: 0.6 ln(1 + exp(-1))."""
    assert loss_of(PAIRS[:1], 0.3).item() == pytest.approx(0.6 * 0.3132616875182228, rel=1e-14)


def test_the_mean_over_as_many_pairs_of_each_sort_is_the_mix() -> None:
    pairs, trace = PAIRS[[0, 1]], TRACE[:2]
    with_trace, without = dpo(pairs).tolist()
    assert loss_of(pairs, 0.3, trace).mean().item() == pytest.approx(0.3 * with_trace + 0.7 * without, rel=1e-14)


@pytest.mark.parametrize(("trace_weight", "kept"), [(1.0, [0, 2]), (0.0, [1])])
def test_at_the_ends_one_sort_counts(trace_weight: float, kept: list[int]) -> None:
    gradient = gradient_of(lambda pairs: loss_of(pairs, trace_weight), PAIRS)
    assert gradient.abs().sum(dim=1).nonzero().flatten().tolist() == kept
    assert torch.allclose(loss_of(PAIRS, trace_weight)[kept], 2 * dpo(PAIRS)[kept], rtol=1e-14)


def squared_error(weight: float, t: Tensor, e: Tensor, trace: float, empty: float, covariance: float) -> float:
    bias = weight * t + (1 - weight) * e
    variance = weight**2 * trace + (1 - weight) ** 2 * empty + 2 * weight * (1 - weight) * covariance
    return float(bias.dot(bias)) + variance


def test_the_best_weight_has_the_smallest_squared_error() -> None:
    t, e = (torch.tensor(one, dtype=torch.float64) for one in ([0.1, -0.2], [0.6, 0.3]))
    errors = {"trace_variance": 0.9, "empty_variance": 0.1, "covariance": 0.05}
    best = best_trace_weight(t, e, **errors)
    lowest = squared_error(best, t, e, *errors.values())
    for weight in torch.linspace(0, 1, 101).tolist():
        assert squared_error(weight, t, e, *errors.values()) >= lowest - 1e-12
    assert 0 < best < 1


def test_the_best_weight_of_an_unbiased_and_a_steady_estimate() -> None:
    """|b|^2 / (|b|^2 + v) = 1 / 5; clipped where even more than one estimate alone would be best."""
    none, bias = torch.zeros(2, dtype=torch.float64), torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert best_trace_weight(none, bias, trace_variance=4.0, empty_variance=0.0) == pytest.approx(0.2, rel=1e-14)
    assert best_trace_weight(bias, none, trace_variance=1.0, empty_variance=0.0, covariance=0.5) == 0.0
    assert math.isfinite(best_trace_weight(none, bias, trace_variance=0.0, empty_variance=0.0))
