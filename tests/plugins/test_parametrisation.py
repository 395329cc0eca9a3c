"""Conversions between what networks predict; every identity on diffusion and on flow schedules."""

from __future__ import annotations

from typing import get_args

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmalign_diffusion.parametrisation import (
    Prediction,
    align,
    squared_error_factor,
    target,
    to_epsilon,
    to_flow,
    to_sample,
    to_velocity,
)
from mmalign_diffusion.schedules import Flow, Schedule, read_schedule

KINDS = get_args(Prediction)
CONVERSIONS = {"epsilon": to_epsilon, "sample": to_sample, "v_prediction": to_velocity, "flow": to_flow}
SD = read_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
FLOW = Flow(torch.arange(1, 1000, dtype=torch.float64) / 1000)

schedules = st.sampled_from([SD, FLOW])
kinds = st.sampled_from(KINDS)
levels = st.lists(st.integers(0, 998), min_size=1, max_size=3)
seeds = st.integers(0, 2**31)


def make(seed: int, count: int, tensors: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(count, 2, 1, 3, dtype=torch.float64, generator=generator) for _ in range(tensors)]


def noised(schedule: Schedule, timesteps: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x0, noise, x_t, a and b, every row at its own level."""
    x0, noise = make(seed, len(timesteps), 2)
    a, b = schedule.coefficients(torch.tensor(timesteps))
    return x0, noise, align(a, x0) * x0 + align(b, x0) * noise, a, b


def squares(errors: Tensor) -> Tensor:
    return errors.flatten(1).square().mean(1)


@given(schedules, levels, seeds, kinds, kinds)
def test_every_prediction_implies_every_other(
    schedule: Schedule, timesteps: list[int], seed: int, given_kind: Prediction, wanted: Prediction
) -> None:
    x0, noise, x_t, a, b = noised(schedule, timesteps, seed)
    exact = target(given_kind, x0, noise, a, b)
    found = CONVERSIONS[wanted](exact, x_t, a, b, given_kind)
    torch.testing.assert_close(found, target(wanted, x0, noise, a, b), rtol=1e-9, atol=1e-9)


@given(schedules, levels, seeds, kinds, kinds)
def test_conversions_are_inverses(
    schedule: Schedule, timesteps: list[int], seed: int, first: Prediction, second: Prediction
) -> None:
    """For any output, right or wrong."""
    _, _, x_t, a, b = noised(schedule, timesteps, seed)
    (output,) = make(seed + 1, len(timesteps), 1)
    there = CONVERSIONS[second](output, x_t, a, b, first)
    torch.testing.assert_close(CONVERSIONS[first](there, x_t, a, b, second), output, rtol=1e-7, atol=1e-7)


@given(schedules, levels, seeds, kinds)
def test_errors_of_all_predictions_are_multiples_of_each_other(
    schedule: Schedule, timesteps: list[int], seed: int, kind: Prediction
) -> None:
    x0, noise, x_t, a, b = noised(schedule, timesteps, seed)
    (eps,) = make(seed + 1, len(timesteps), 1)
    sample_error = squares(to_sample(eps, x_t, a, b, "epsilon") - x0)
    error = squares(CONVERSIONS[kind](eps, x_t, a, b, "epsilon") - target(kind, x0, noise, a, b))
    torch.testing.assert_close(error, squared_error_factor(kind, a, b) * sample_error, rtol=1e-9, atol=0)


def test_errors_on_a_diffusion_schedule() -> None:
    """|dv|^2 = |deps|^2 / alpha_bar and |dx0|^2 = |deps|^2 / SNR."""
    timesteps = torch.tensor([0, 400, 999])
    a, b = SD.coefficients(timesteps)
    of_noise = squared_error_factor("epsilon", a, b)
    torch.testing.assert_close(squared_error_factor("v_prediction", a, b) / of_noise, 1 / a**2, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_noise, SD.snr(timesteps), rtol=1e-12, atol=0)
    assert squared_error_factor("sample", a, b).tolist() == [1.0] * 3


def test_errors_on_a_flow() -> None:
    """|du|^2 = |deps|^2 / (1 - sigma)^2."""
    a, b = FLOW.coefficients(torch.tensor([0, 400, 998]))
    ratio = squared_error_factor("flow", a, b) / squared_error_factor("epsilon", a, b)
    torch.testing.assert_close(ratio, 1 / (1 - b) ** 2, rtol=1e-12, atol=0)


def test_the_loss_on_v_is_the_loss_on_the_noise_over_alpha_bar() -> None:
    x0, noise, x_t, a, b = noised(SD, [37, 412, 905], seed=3)
    (eps,) = make(4, 3, 1)
    loss = squares(to_velocity(eps, x_t, a, b, "epsilon") - target("v_prediction", x0, noise, a, b))
    torch.testing.assert_close(loss, squares(eps - noise) / a**2, rtol=1e-11, atol=0)


def test_v_is_the_velocity_of_diffusers() -> None:
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    x0, noise, x_t, a, b = noised(SD, [37, 412, 905], seed=5)
    timesteps = torch.tensor([37, 412, 905])
    expected = scheduler.get_velocity(x0, noise, timesteps)
    torch.testing.assert_close(target("v_prediction", x0, noise, a, b), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x_t, scheduler.add_noise(x0, noise, timesteps), rtol=1e-5, atol=1e-5)


def test_the_same_point_on_a_flow_has_the_same_clean_latents_and_noise() -> None:
    """sigma = b / (a + b) and x_sigma = x_t / (a + b); the velocity there is noise - x0 of the diffusion model."""
    _, _, x_t, a, b = noised(SD, [37, 412, 905], seed=6)
    (eps,) = make(7, 3, 1)
    sigma = b / (a + b)
    velocity = to_flow(eps, x_t, a, b, "epsilon")
    there = (velocity, x_t / align(a + b, x_t), 1 - sigma, sigma, "flow")
    torch.testing.assert_close(to_epsilon(*there), eps, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(to_sample(*there), to_sample(eps, x_t, a, b, "epsilon"), rtol=1e-10, atol=1e-10)


def test_an_output_that_is_wanted_comes_back_as_it_is_even_where_nothing_follows_from_it() -> None:
    """Pure noise and no noise: no division, so no infinity."""
    output, x_t = torch.ones(2, 3), torch.zeros(2, 3)
    ends = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    for kind, convert in CONVERSIONS.items():
        assert torch.equal(convert(output, x_t, *ends, kind), output)
    for kind in ("v_prediction", "flow"):
        assert to_sample(output, x_t, *ends, kind).isfinite().all()
        assert to_epsilon(output, x_t, *ends, kind).isfinite().all()


@pytest.mark.parametrize(
    ("convert", "kind", "a", "message"),
    [
        (to_sample, "epsilon", 0.0, "x0 does not follow from the noise"),
        (to_velocity, "epsilon", 0.0, "x0 does not follow from the noise"),
        (to_epsilon, "sample", 1.0, "the noise does not follow from x0"),
        (to_flow, "sample", 1.0, "the noise does not follow from x0"),
    ],
)
def test_what_does_not_follow_is_an_error_and_no_infinity(convert, kind: Prediction, a: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([a]), torch.tensor([1 - a]), kind)


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_half_precision_is_left_before_anything_is_computed(dtype: torch.dtype, expected: torch.dtype) -> None:
    a, b = SD.coefficients(torch.tensor([0]))
    x = torch.full((1, 2), 0.3, dtype=dtype)
    for convert in CONVERSIONS.values():
        assert convert(x.bfloat16(), x, a, b, "epsilon").dtype == expected
    assert target("epsilon", x, x, a, b).dtype == expected
    # In half precision a^2 of the first level would be 1, and b^2 off by a third.
    x0 = to_sample(torch.zeros_like(x), x, a, b, "epsilon")
    torch.testing.assert_close(x0, x.to(expected) / 0.99915**0.5, rtol=1e-6, atol=0)


def test_mistakes_are_told() -> None:
    a = b = torch.tensor([0.5])
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="unknown 'eps'; did you mean 'epsilon'"):
        to_sample(x, x, a, b, "eps")
    with pytest.raises(ValueError, match=r"one shape, got \(1, 3\) and \(1, 2\)"):
        to_sample(torch.zeros(1, 3), x, a, b, "epsilon")
    with pytest.raises(ValueError, match=r"each of the 1 rows, got shape \(2,\)"):
        to_sample(x, x, torch.ones(2), b, "epsilon")
