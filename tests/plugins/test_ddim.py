"""DDIM steps, against diffusers' scheduler and torch's normal distribution."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from mmalign_diffusion.ddim import ddim_step, gaussian_kl, gaussian_log_prob, transition_std
from mmalign_diffusion.parametrisation import Prediction, to_epsilon
from mmalign_diffusion.schedules import Flow, read_schedule

SD_CONFIG: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TIMESTEPS = torch.tensor([981, 501, 21, 1])
PREVIOUS = TIMESTEPS - 20


def draws(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 2, 2, 2, dtype=torch.float64, generator=generator) for _ in range(count)]


def build_scheduler(**options: Any) -> Any:
    """Diffusers' DDIM with 50 steps, its levels in float64, so that the comparison can be sharp."""
    scheduler = diffusers.DDIMScheduler(**SD_CONFIG, clip_sample=False, **options)
    levels, _ = read_schedule(SD_CONFIG).coefficients(torch.arange(1000))
    scheduler.alphas_cumprod = levels**2
    if not scheduler.config.set_alpha_to_one:
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(50)
    return scheduler


@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_batch_of_steps_from_different_levels_is_what_diffusers_does_one_by_one(
    kind: Prediction, eta: float, to_one: bool
) -> None:
    x, output, noise = draws(3)
    scheduler = build_scheduler(prediction_type=kind, set_alpha_to_one=to_one)
    schedule = read_schedule({**SD_CONFIG, "set_alpha_to_one": to_one})
    eps = to_epsilon(output, x, *schedule.coefficients(TIMESTEPS), kind)
    mean, std = ddim_step(x, eps, TIMESTEPS, PREVIOUS, schedule, eta)
    for row, timestep in enumerate(TIMESTEPS.tolist()):
        arguments = {"eta": eta, "variance_noise": noise[row]}
        expected = scheduler.step(output[row], timestep, x[row], **arguments).prev_sample
        torch.testing.assert_close(mean[row] + std[row] * noise[row], expected, rtol=1e-9, atol=1e-9)


def test_log_prob_and_kl_are_those_of_normal_distributions() -> None:
    x, mean, reference = draws(3)
    std = torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    policy, other = (Normal(center, std.reshape(4, 1, 1, 1)) for center in (mean, reference))
    torch.testing.assert_close(gaussian_log_prob(x, mean, std, "sum"), policy.log_prob(x).flatten(1).sum(1))
    torch.testing.assert_close(gaussian_log_prob(x, mean, std, "mean"), policy.log_prob(x).flatten(1).mean(1))
    torch.testing.assert_close(gaussian_kl(mean, reference, std, "sum"), kl_divergence(policy, other).flatten(1).sum(1))
    mean_kl = gaussian_kl(mean, reference, std, "mean")
    torch.testing.assert_close(mean_kl * x[0].numel(), gaussian_kl(mean, reference, std, "sum"))


def test_a_log_ratio_is_the_difference_of_squared_distances_over_twice_the_variance() -> None:
    x, eps, reference_eps, noise = draws(4)
    schedule = read_schedule(SD_CONFIG)
    mean, std = ddim_step(x, eps, TIMESTEPS, PREVIOUS, schedule, 1.0)
    reference, _ = ddim_step(x, reference_eps, TIMESTEPS, PREVIOUS, schedule, 1.0)
    # The step to the clean latents has no density.
    mean, reference, std, noise = mean[:3], reference[:3], std[:3], noise[:3]
    drawn = mean + std.reshape(3, 1, 1, 1) * noise
    ratio = gaussian_log_prob(drawn, mean, std, "sum") - gaussian_log_prob(drawn, reference, std, "sum")
    distances = [(drawn - one).flatten(1).square().sum(1) for one in (reference, mean)]
    torch.testing.assert_close(ratio, (distances[0] - distances[1]) / (2 * std**2))


def test_the_kl_to_the_reference_is_a_multiple_of_the_squared_difference_of_the_noise() -> None:
    """c^2 |eps - eps_ref|^2 / (2 std^2), c = sqrt(1 - ab_s - std^2) - sqrt(ab_s (1 - ab_t) / ab_t)."""
    x, eps, reference_eps = draws(3)
    schedule = read_schedule({**SD_CONFIG, "set_alpha_to_one": False})
    mean, std = ddim_step(x, eps, TIMESTEPS, PREVIOUS, schedule, 0.7)
    reference, _ = ddim_step(x, reference_eps, TIMESTEPS, PREVIOUS, schedule, 0.7)
    now, then = (schedule.coefficients(one)[0] ** 2 for one in (TIMESTEPS, PREVIOUS))
    slope = (1 - then - std**2).sqrt() - (then * (1 - now) / now).sqrt()
    expected = slope**2 * (eps - reference_eps).flatten(1).square().sum(1) / (2 * std**2)
    torch.testing.assert_close(gaussian_kl(mean, reference, std, "sum"), expected, rtol=1e-10, atol=0)


def test_equal_policies_have_no_kl_and_a_log_ratio_of_zero() -> None:
    (mean,) = draws(1)
    std = torch.full((4,), 0.3, dtype=torch.float64)
    assert gaussian_kl(mean, mean, std, "sum").tolist() == [0.0] * 4


def test_eta_scales_the_standard_deviation_and_more_noise_costs_none() -> None:
    x, eps = draws(2)
    schedule = read_schedule(SD_CONFIG)
    full, half = (ddim_step(x, eps, TIMESTEPS, PREVIOUS, schedule, eta)[1] for eta in (1.0, 0.5))
    torch.testing.assert_close(half, full / 2)
    now, then = (schedule.coefficients(one)[0] ** 2 for one in (TIMESTEPS, PREVIOUS))
    torch.testing.assert_close(full**2, (1 - then) / (1 - now) * (1 - now / then), rtol=1e-10, atol=1e-15)
    assert transition_std(PREVIOUS, TIMESTEPS, schedule).tolist() == [0.0] * 4
    assert transition_std(TIMESTEPS, TIMESTEPS, schedule).tolist() == [0.0] * 4


def test_a_move_and_its_way_back_with_the_same_noise_cancel() -> None:
    x, eps = draws(2)
    schedule = read_schedule(SD_CONFIG)
    there, _ = ddim_step(x, eps, PREVIOUS, TIMESTEPS, schedule, 0.0)
    torch.testing.assert_close(ddim_step(there, eps, TIMESTEPS, PREVIOUS, schedule, 0.0)[0], x, rtol=1e-9, atol=1e-9)


def test_on_a_flow_the_deterministic_step_is_the_euler_step() -> None:
    x, velocity = draws(2)
    schedule = Flow(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    (a, b), (_, next_b) = schedule.coefficients(TIMESTEPS), schedule.coefficients(PREVIOUS)
    mean, _ = ddim_step(x, to_epsilon(velocity, x, a, b, "flow"), TIMESTEPS, PREVIOUS, schedule, 0.0)
    expected = x + (next_b - b).reshape(4, 1, 1, 1) * velocity
    torch.testing.assert_close(mean, expected, rtol=1e-9, atol=1e-9)


def test_a_ddpm_step_on_a_flow_keeps_the_marginal() -> None:
    """Clean latents all 0: x_t has variance b^2, and with the right noise so has what a step draws from it."""
    schedule = Flow(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    x = torch.ones(4, 1, dtype=torch.float64)
    b, next_b = (schedule.coefficients(one)[1] for one in (TIMESTEPS, PREVIOUS))
    mean, std = ddim_step(x, x / b.unsqueeze(1), TIMESTEPS, PREVIOUS, schedule, 1.0)
    torch.testing.assert_close((mean.squeeze(1) * b) ** 2 + std**2, next_b**2, rtol=1e-12, atol=1e-15)


def test_mistakes_are_told() -> None:
    x, eps = draws(2)
    schedule = read_schedule(SD_CONFIG)
    with pytest.raises(ValueError, match="eta: expected 0 to 1"):
        ddim_step(x, eps, TIMESTEPS, PREVIOUS, schedule, 1.5)
    with pytest.raises(ValueError, match="has no density"):
        gaussian_log_prob(x, eps, torch.zeros(4), "sum")
    with pytest.raises(ValueError, match="one shape"):
        gaussian_log_prob(x, eps[:1], torch.ones(4), "sum")
    with pytest.raises(ValueError, match="each of the 4 rows"):
        gaussian_log_prob(x, eps, torch.ones(1), "sum")
