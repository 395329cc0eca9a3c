"""Masked reductions: values by hand, independence of how a batch is cut, and immunity to what padding holds."""

from __future__ import annotations

import pytest
import torch

from mmalign.errors import ConfigError
from mmalign.losses.reductions import (
    AGGREGATIONS,
    aggregation_weights,
    masked_mean,
    masked_sum,
    step_mask,
    weighted_sum,
)

NAN, INF = float("nan"), float("inf")
MASK = torch.tensor([[True, True, True], [True, False, False]])
LOSSES = torch.tensor([[1.0, 2.0, 3.0], [10.0, NAN, INF]], dtype=torch.float64)


def weights_of(name: str, mask: torch.Tensor, steps: float, responses: float, horizon: float | None) -> torch.Tensor:
    totals = {
        "total_steps": torch.tensor(steps, dtype=torch.float64),
        "total_responses": torch.tensor(responses, dtype=torch.float64),
    }
    return aggregation_weights(name, mask, **totals, horizon=horizon)


def test_step_mask_marks_the_first_steps() -> None:
    assert torch.equal(step_mask(torch.tensor([3, 1]), 3), MASK)


def test_masked_sum_and_mean_leave_padding_out() -> None:
    assert masked_sum(LOSSES, MASK).tolist() == [6.0, 10.0]
    assert masked_mean(LOSSES, MASK).tolist() == [2.0, 10.0]


def test_a_response_without_steps_has_sum_and_mean_zero() -> None:
    values, mask = torch.full((1, 2), NAN), torch.zeros(1, 2, dtype=torch.bool)
    assert masked_sum(values, mask).tolist() == [0.0]
    assert masked_mean(values, mask).tolist() == [0.0]


@pytest.mark.parametrize("reduce", [masked_sum, masked_mean])
def test_padding_that_is_not_finite_sends_no_gradient_back(reduce) -> None:
    values = LOSSES.clone().requires_grad_()
    reduce(values, MASK).sum().backward()
    assert torch.isfinite(values.grad).all()
    assert (values.grad[~MASK] == 0).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("step_mean", (1 + 2 + 3 + 10) / 4),
        ("sequence_mean", (2 + 10) / 2),
        ("sequence_sum", (6 + 10) / 2),
        ("constant", (6 + 10) / (2 * 5)),
    ],
)
def test_weighted_sum_of_step_losses_is_the_aggregate(name: str, expected: float) -> None:
    """Two responses with losses 1, 2, 3 and 10; horizon 5."""
    losses = LOSSES.clone().requires_grad_()
    total = weighted_sum(losses, weights_of(name, MASK, 4, 2, 5))
    total.backward()
    assert total.item() == pytest.approx(expected, rel=1e-15)
    assert torch.isfinite(losses.grad).all()
    assert (losses.grad[~MASK] == 0).all()


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_weights_do_not_depend_on_how_the_global_batch_is_cut(name: str) -> None:
    mask = step_mask(torch.tensor([4, 1, 3, 2, 4]), 4)
    losses = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps, responses = mask.sum().item(), len(mask)
    whole = weighted_sum(losses, weights_of(name, mask, steps, responses, 7))
    # Row 1 alone is cut to its own length, too, as a micro-batch of short responses is.
    parts = [(losses[:1], mask[:1]), (losses[1:2, :1], mask[1:2, :1]), (losses[2:], mask[2:])]
    total = sum(weighted_sum(part, weights_of(name, own, steps, responses, 7)) for part, own in parts)
    assert total.item() == pytest.approx(whole.item(), rel=1e-14)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_two_rows_of_equal_step_losses_weigh_by_length_unless_meant_otherwise(name: str) -> None:
    """Lengths 1 and 10: a mean over responses weighs them 1:1, everything else 1:10 (Dr. GRPO, section 3)."""
    weights = weights_of(name, step_mask(torch.tensor([1, 10]), 10), 11, 2, 10).sum(dim=1)
    assert (weights[1] / weights[0]).item() == pytest.approx(1 if name == "sequence_mean" else 10)


def test_doubling_the_horizon_halves_the_weights() -> None:
    assert torch.equal(weights_of("constant", MASK, 4, 2, 10) * 2, weights_of("constant", MASK, 4, 2, 5))


def test_an_unknown_aggregation_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="unknown 'step_maen'; did you mean 'step_mean'"):
        weights_of("step_maen", MASK, 4, 2, None)


@pytest.mark.parametrize("horizon", [None, 0, -1.0, NAN])
def test_the_constant_aggregation_needs_a_positive_horizon(horizon: float | None) -> None:
    with pytest.raises(ConfigError, match="horizon: got"):
        weights_of("constant", MASK, 4, 2, horizon)


def test_wrong_shapes_and_types_are_errors() -> None:
    with pytest.raises(ValueError, match="expected the shape of the values"):
        masked_sum(LOSSES, MASK[:, :2])
    with pytest.raises(ValueError, match="values: expected 2 dimension"):
        masked_sum(LOSSES[0], MASK[0])
    with pytest.raises(TypeError, match="expected bool"):
        masked_sum(LOSSES, MASK.float())
    with pytest.raises(ValueError, match="weights: expected the shape"):
        weighted_sum(LOSSES, MASK[:1].double())
