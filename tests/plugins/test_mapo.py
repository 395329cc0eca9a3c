"""MaPO: its link, and the forms of paper and code."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import gradient_of
from torch import Tensor

from mmalign_objectives.denoising.mapo import link_errors, mapo_loss

CODE = {"preference_weight": 0.1, "margin_scale": 1000.0, "error_scale": 0.5, "link_power": 1.0}
ERRORS = torch.tensor([[0.10, 0.05], [0.02, 0.03], [0.30, 0.20]], dtype=torch.float64)


def paper(beta: float) -> dict[str, float]:
    return {"preference_weight": 1 / beta, "margin_scale": 1.0, "error_scale": 1.0, "link_power": beta}


def loss_of(errors: Tensor, options: dict[str, float]) -> Tensor:
    return mapo_loss(*(-errors / 2).unbind(1), **options)[0]


def test_mapo_loss_by_hand() -> None:
    """x / (exp(x) - 1) is 1 / 2 at x = 1.2564312086261697 and 1 at 0; beta 1: x - logsigmoid(1/2 - 1)."""
    half = 1.2564312086261697
    expected = half + math.log(1 + math.exp(0.5))
    errors = torch.tensor([[half, 0.0]], dtype=torch.float64)
    assert loss_of(errors, paper(1.0)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("options", [CODE, paper(1.0), paper(8.0)], ids=["code", "paper 1", "paper 8"])
def test_mapo_agrees_with_a_longhand_reference(options: dict[str, float]) -> None:
    for (chosen, rejected), loss in zip(ERRORS.tolist(), loss_of(ERRORS, options), strict=True):
        links = []
        for error in (chosen, rejected):
            x = options["error_scale"] * error
            links.append((x / math.expm1(x)) ** options["link_power"])
        margin = options["margin_scale"] * (links[0] - links[1])
        expected = chosen + options["preference_weight"] * math.log(1 + math.exp(-margin))
        assert loss.item() == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("error", [0.0, 0.1, 3.0])
def test_equal_errors_cost_the_error_and_the_log_2_of_no_margin(error: float) -> None:
    errors = torch.full((1, 2), error, dtype=torch.float64)
    assert loss_of(errors, CODE).item() == pytest.approx(error + 0.1 * math.log(2), rel=1e-12)
    assert loss_of(errors, paper(4.0)).item() == pytest.approx(error + math.log(2) / 4, rel=1e-12)


def test_link_is_1_at_0_with_slope_minus_half_the_scale() -> None:
    errors = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    link = link_errors(errors, scale=0.5, power=1.0)
    link.sum().backward()
    assert link.item() == 1.0
    assert errors.grad.item() == -0.25


def test_link_falls_from_1_to_0() -> None:
    links = link_errors(torch.linspace(0, 400, 4001, dtype=torch.float64), scale=0.5, power=1.0)
    assert bool((links.diff() < 0).all())
    assert bool(((links > 0) & (links <= 1)).all())


@pytest.mark.parametrize("x", [-3.0, -0.05, 1e-9, 0.01, 0.0999999, 0.1000001, 0.3, 5.0, 80.0])
@pytest.mark.parametrize("power", [1.0, 2.5])
def test_link_is_exact_on_both_sides_of_the_series(x: float, power: float) -> None:
    got = link_errors(torch.tensor([x], dtype=torch.float64), scale=1.0, power=power).item()
    assert got == pytest.approx((x / math.expm1(x)) ** power, rel=1e-13)


@pytest.mark.parametrize("error", [0.0, 1e-12, 1e4])
@pytest.mark.parametrize("power", [0.5, 1.0, 8.0])
def test_link_and_its_gradient_are_finite_in_float32(error: float, power: float) -> None:
    errors = torch.tensor([error], requires_grad=True)
    link_errors(errors, scale=0.5, power=power).sum().backward()
    assert errors.grad is not None
    assert bool(errors.grad.isfinite().all())


@pytest.mark.parametrize("options", [CODE, paper(1.0), paper(8.0)], ids=["code", "paper 1", "paper 8"])
def test_gradients_agree_with_finite_differences(options: dict[str, float]) -> None:
    leaf = ERRORS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda errors: loss_of(errors, options), (leaf,), eps=1e-6, atol=1e-6)


def test_its_gradient_lowers_the_error_of_chosen_and_raises_that_of_rejected() -> None:
    gradient = gradient_of(lambda errors: loss_of(errors, CODE), ERRORS)
    assert gradient.sign().tolist() == [[1.0, -1.0]] * 3


def test_metrics_are_errors_and_which_is_lower() -> None:
    pairs = torch.tensor([[0.1, 0.2], [0.2, 0.1], [0.1, 0.1]], dtype=torch.float64)
    _, metrics = mapo_loss(*(-pairs / 2).unbind(1), **CODE)
    assert metrics["chosen_errors"].tolist() == [0.1, 0.2, 0.1]
    assert metrics["reward_accuracies"].tolist() == [1.0, 0.0, 0.5]
