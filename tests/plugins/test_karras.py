"""Preconditioned denoisers: their identities, and that they are `v_prediction` on a variance-preserving schedule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign_diffusion.karras import karras_schedule, log_logistic_sigmas, preconditioning
from mmalign_diffusion.parametrisation import target, to_sample

DATA_STD = 0.5
SIGMAS = torch.tensor([0.005, 0.1, 0.5, 1.0], dtype=torch.float64)


def draw(seed: int) -> Tensor:
    return torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_inputs_have_unit_variance_and_no_noise_leaves_the_data_alone() -> None:
    _, _, c_in = preconditioning(SIGMAS, data_std=DATA_STD)
    assert (c_in**2 * (SIGMAS**2 + DATA_STD**2)).tolist() == pytest.approx([1.0] * 4)
    c_skip, c_out, _ = preconditioning(torch.tensor(0.0), data_std=DATA_STD)
    assert (float(c_skip), float(c_out)) == (1.0, 0.0)


def test_by_hand() -> None:
    """sigma = s_d = 0.5: c_skip = 1/2, c_out = 0.25 / sqrt(0.5), c_in = 1 / sqrt(0.5)."""
    coefficients = [float(one) for one in preconditioning(torch.tensor(0.5), data_std=DATA_STD)]
    assert coefficients == pytest.approx([0.5, 0.25 * 2**0.5, 2**0.5])


def test_the_target_is_minus_the_velocity_of_scaled_data() -> None:
    x, noise = DATA_STD * draw(0), draw(1)
    c_skip, c_out, c_in = (one[:, None] for one in preconditioning(SIGMAS, data_std=DATA_STD))
    y = x + SIGMAS[:, None] * noise
    a, b = karras_schedule(SIGMAS, data_std=DATA_STD).coefficients(torch.arange(4))
    torch.testing.assert_close(c_in * y, a[:, None] * x / DATA_STD + b[:, None] * noise)
    torch.testing.assert_close((x - c_skip * y) / c_out, -target("v_prediction", x / DATA_STD, noise, a, b))


def test_its_clean_latents_are_the_denoiser_of_the_paper() -> None:
    y, network = draw(2), draw(3)
    c_skip, c_out, c_in = (one[:, None] for one in preconditioning(SIGMAS, data_std=DATA_STD))
    a, b = karras_schedule(SIGMAS, data_std=DATA_STD).coefficients(torch.arange(4))
    clean = DATA_STD * to_sample(-network, c_in * y, a, b, "v_prediction")
    torch.testing.assert_close(clean, c_skip * y + c_out * network)


def test_a_network_that_says_nothing_gives_the_posterior_mean_of_gaussian_data() -> None:
    """Data N(0, s_d^2): the mean given y is s_d^2 / (sigma^2 + s_d^2) y, so F = 0."""
    y = draw(4)
    c_skip, _, _ = preconditioning(SIGMAS, data_std=DATA_STD)
    torch.testing.assert_close(c_skip[:, None] * y, DATA_STD**2 / (SIGMAS**2 + DATA_STD**2)[:, None] * y)


def test_levels_are_quantiles_of_the_truncated_log_logistic_distribution() -> None:
    sigmas = log_logistic_sigmas(1001, low=0.005, high=1.0, median=0.5, scale=0.5)
    assert bool((sigmas.diff() > 0).all()) and 0.005 < sigmas[0] and sigmas[-1] < 1.0
    bounds = ((torch.tensor([0.005, 1.0]).double() / 0.5).log() / 0.5).sigmoid()
    middle = bounds.mean()  # the share below the level in the middle
    assert float(sigmas[500]) == pytest.approx(float(0.5 * (0.5 * (middle / (1 - middle)).log()).exp()), rel=1e-9)
