"""Stochastic steps of a flow: limits, identities, and that they keep the marginals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign_diffusion.ddim import gaussian_kl, gaussian_log_prob
from mmalign_diffusion.flow_sde import flow_grpo_diffusion, flow_sde_step

SIGMAS = torch.tensor([1.0, 0.72, 0.2], dtype=torch.float64)
NEXT = torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64)
ETA = torch.full((3,), 0.3, dtype=torch.float64)


def draws(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 2, 1, 2, dtype=torch.float64, generator=generator) for _ in range(count)]


def rows(values: Tensor) -> Tensor:
    return values.reshape(3, 1, 1, 1)


def test_a_step_by_hand() -> None:
    """sigma 0.5 to 0.25, g 1, x 1, u 2: mean 1 (1 - 0.25) + 2 (1 + 0.5) (-0.25) = 0; std sqrt(0.25) = 0.5."""
    one = torch.ones(1, 1, dtype=torch.float64)
    levels = torch.tensor([0.5]), torch.tensor([0.25])
    mean, std = flow_sde_step(one, 2 * one, *levels, torch.ones(1))
    assert (mean.item(), std.item()) == (0.0, 0.5)


def test_without_diffusion_it_is_the_euler_step_of_the_flow() -> None:
    x, velocity = draws(2)
    mean, std = flow_sde_step(x, velocity, SIGMAS, NEXT, torch.zeros(3))
    torch.testing.assert_close(mean, x + rows(NEXT - SIGMAS) * velocity)
    assert std.tolist() == [0.0] * 3
    near, _ = flow_sde_step(x, velocity, SIGMAS, NEXT, torch.full((3,), 1e-4))
    torch.testing.assert_close(near, mean, rtol=0, atol=1e-7)


def test_the_drift_is_that_of_the_score() -> None:
    """Dance-GRPO writes x + (u - g^2 score / 2) dsigma with score = -(x - (1 - sigma) x0) / sigma^2."""
    x, velocity = draws(2)
    x0 = x - rows(SIGMAS) * velocity
    score = -(x - rows(1 - SIGMAS) * x0) / rows(SIGMAS) ** 2
    expected = x + (velocity - rows(ETA) ** 2 / 2 * score) * rows(NEXT - SIGMAS)
    mean, std = flow_sde_step(x, velocity, SIGMAS, NEXT, ETA)
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(std, ETA * (SIGMAS - NEXT).sqrt())


def test_flow_grpo_and_dance_grpo_agree_where_their_diffusion_does() -> None:
    x, velocity = draws(2)
    noise_level = 0.3 * ((1 - SIGMAS[1]) / SIGMAS[1]).sqrt().item()
    diffusion = flow_grpo_diffusion(SIGMAS, noise_level=noise_level, first_sigma=0.9)
    assert diffusion[1].item() == pytest.approx(0.3, rel=1e-14)
    first, second = (flow_sde_step(x, velocity, SIGMAS, NEXT, one) for one in (diffusion, ETA))
    torch.testing.assert_close(first[0][1], second[0][1])
    torch.testing.assert_close(first[1][1], second[1][1])


def test_diffusion_of_flow_grpo_by_hand() -> None:
    """0.7 sqrt(1 / (1 - 0.9)) where sigma is 1, 0.7 sqrt(0.5 / 0.5) in the middle, 0 at the end."""
    found = flow_grpo_diffusion(torch.tensor([1.0, 0.5, 0.0]), noise_level=0.7, first_sigma=0.9)
    assert found.tolist() == pytest.approx([0.7 * 10**0.5, 0.7, 0.0], rel=1e-12)


def test_kl_and_log_ratio_of_two_policies() -> None:
    """KL = |dsigma| / 2 (g (1 - sigma) / (2 sigma) + 1 / g)^2 |u - u_ref|^2; log-ratio = difference of distances."""
    x, velocity, reference_velocity, noise = draws(4)
    mean, std = flow_sde_step(x, velocity, SIGMAS, NEXT, ETA)
    reference, _ = flow_sde_step(x, reference_velocity, SIGMAS, NEXT, ETA)
    squared = (velocity - reference_velocity).flatten(1).square().sum(1)
    slope = ETA * (1 - SIGMAS) / (2 * SIGMAS) + 1 / ETA
    torch.testing.assert_close(gaussian_kl(mean, reference, std, "sum"), (SIGMAS - NEXT) / 2 * slope**2 * squared)
    drawn = mean + rows(std) * noise
    ratio = gaussian_log_prob(drawn, mean, std, "sum") - gaussian_log_prob(drawn, reference, std, "sum")
    distances = [(drawn - one).flatten(1).square().sum(1) for one in (reference, mean)]
    torch.testing.assert_close(ratio, (distances[0] - distances[1]) / (2 * std**2))


def variance_after(step: float, diffusion: float) -> float:
    """Variance after one step from sigma 0.6, for data N(0, 0.5^2), with the exact velocity of that data."""
    start, spread = 0.6, 0.25
    now = torch.tensor([start], dtype=torch.float64)
    variance = (1 - start) ** 2 * spread + start**2
    # E[noise - x0 | x] for x = (1 - sigma) x0 + sigma noise.
    slope = (start - (1 - start) * spread) / variance
    x = torch.ones(1, 1, dtype=torch.float64)
    mean, std = flow_sde_step(x, slope * x, now, now - step, torch.tensor([diffusion]))
    return mean.item() ** 2 * variance + std.item() ** 2


@pytest.mark.parametrize("diffusion", [0.0, 0.3, 1.0])
def test_every_diffusion_keeps_the_marginal_up_to_the_square_of_the_step(diffusion: float) -> None:
    errors = []
    for step in (0.02, 0.01, 0.005):
        sigma = 0.6 - step
        errors.append(variance_after(step, diffusion) - ((1 - sigma) ** 2 * 0.25 + sigma**2))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(("now", "then"), [(0.5, 0.5), (0.2, 0.3), (0.0, 0.0), (0.5, -0.1)])
def test_levels_that_do_not_fall_are_an_error(now: float, then: float) -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="expected next_sigmas below"):
        flow_sde_step(x, x, torch.tensor([now]), torch.tensor([then]), torch.ones(1))
