"""Noise schedules, against diffusers' own schedulers."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import pytest
import torch

from mmalign import ConfigError
from mmalign_diffusion.schedules import Flow, VariancePreserving, read_schedule, shift_sigmas

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ALL = torch.arange(1000)

VP_SCHEDULERS = {
    "SD": ("PNDMScheduler", {**STABLE_DIFFUSION, "set_alpha_to_one": False, "steps_offset": 1}),
    "SDXL": ("EulerDiscreteScheduler", {**STABLE_DIFFUSION, "timestep_spacing": "leading"}),
    "DDPM": ("DDPMScheduler", {}),
    "cosine": ("DDIMScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
    "given": ("DDIMScheduler", {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3}),
    "zero SNR": ("DDIMScheduler", {**STABLE_DIFFUSION, "rescale_betas_zero_snr": True}),
    "video": ("CogVideoXDDIMScheduler", {"snr_shift_scale": 3.0, "rescale_betas_zero_snr": True}),
}


def saved_config(name: str, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A scheduler and what its file would hold."""
    scheduler = getattr(diffusers, name)(**options)
    return scheduler, json.loads(scheduler.to_json_string())


@pytest.mark.parametrize("case", VP_SCHEDULERS)
def test_levels_are_those_of_the_scheduler_but_in_float64(case: str) -> None:
    scheduler, config = saved_config(*VP_SCHEDULERS[case])
    schedule = read_schedule(config)
    a, b = schedule.coefficients(torch.arange(schedule.steps))
    assert a.dtype == b.dtype == torch.float64
    torch.testing.assert_close(a**2, scheduler.alphas_cumprod.double(), rtol=5e-5, atol=2e-7)
    torch.testing.assert_close(a**2 + b**2, torch.ones_like(a), rtol=1e-15, atol=0)


def test_stable_diffusion_levels_by_hand() -> None:
    """alpha_bar_0 = 1 - 0.00085; the next one times 1 - (sqrt(0.00085) + (sqrt(0.012) - sqrt(0.00085)) / 999)^2."""
    a, _ = read_schedule(STABLE_DIFFUSION).coefficients(torch.tensor([0, 1]))
    beta = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) / 999) ** 2
    assert (a**2).tolist() == pytest.approx([0.99915, 0.99915 * (1 - beta)], rel=1e-14)


@pytest.mark.parametrize(("to_one", "expected"), [(True, 1.0), (False, 0.99915)])
def test_every_negative_timestep_is_the_final_level(to_one: bool, expected: float) -> None:
    schedule = read_schedule({**STABLE_DIFFUSION, "set_alpha_to_one": to_one})
    a, b = schedule.coefficients(torch.tensor([-1, -99]))
    assert (a**2).tolist() == pytest.approx([expected] * 2, rel=1e-15)
    assert (b**2).tolist() == pytest.approx([1 - expected] * 2, rel=1e-12)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_levels_are_those_of_the_scheduler(shift: float) -> None:
    scheduler, config = saved_config("FlowMatchEulerDiscreteScheduler", {"shift": shift})
    schedule = read_schedule(config)
    a, b = schedule.coefficients(ALL)
    torch.testing.assert_close(b, scheduler.sigmas.double().flip(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(schedule.network_timesteps(ALL), scheduler.timesteps.flip(0), rtol=1e-6, atol=0)
    assert torch.equal(a, 1 - b)
    assert [float(one) for one in schedule.coefficients(torch.tensor(-1))] == [1.0, 0.0]


def test_a_dynamic_shift_is_left_to_who_knows_the_size_of_the_image() -> None:
    """And is what diffusers' `time_shift` does with mu."""
    scheduler, config = saved_config("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True})
    _, b = read_schedule(config).coefficients(ALL)
    torch.testing.assert_close(b, (ALL + 1).double() / 1000, rtol=1e-15, atol=0)
    expected = scheduler.time_shift(0.8, 1.0, b)
    torch.testing.assert_close(shift_sigmas(b, torch.tensor(0.8).double().exp().item()), expected, rtol=1e-7, atol=0)


def test_flow_levels_of_a_multistep_solver() -> None:
    options = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    _, config = saved_config("DPMSolverMultistepScheduler", options)
    schedule = read_schedule(config)
    assert isinstance(schedule, Flow)
    assert schedule.coefficients(torch.tensor(499))[1].item() == pytest.approx(0.75)


def test_snr_and_what_the_network_is_told() -> None:
    schedule = VariancePreserving(torch.tensor([0.9, 0.5], dtype=torch.float64))
    assert schedule.snr(torch.tensor([[0, 1]])).tolist() == [pytest.approx([9.0, 1.0])]
    assert schedule.snr(torch.tensor(-1)).item() == float("inf")
    assert schedule.network_timesteps(torch.tensor([-1, 1])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "scheduler EDMEulerScheduler: expected one of flow matching"),
        ({"beta_schedule": "squaredcos"}, "beta_schedule: unknown 'squaredcos'; did you mean 'squaredcos_cap_v2'"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas"),
    ],
)
def test_a_scheduler_that_is_not_understood_is_an_error(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_schedule(config)


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [(torch.tensor([3]), "expected at most 1, got 3"), (torch.tensor([0.5]), "expected integers")],
)
def test_timesteps_that_are_none_are_an_error(timesteps: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VariancePreserving(torch.tensor([0.9, 0.5])).coefficients(timesteps)


@pytest.mark.parametrize("levels", [[0.5, 0.9], [1.2, 0.5], [], [float("nan")]])
def test_levels_that_are_none_are_an_error(levels: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        VariancePreserving(torch.tensor(levels))
    with pytest.raises(ValueError, match="expected"):
        Flow(torch.tensor([1 - level for level in levels]))
