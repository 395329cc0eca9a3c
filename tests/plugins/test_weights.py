"""Weights of denoising errors."""

from __future__ import annotations

import pytest
import torch

from mmalign import ConfigError
from mmalign_diffusion.parametrisation import squared_error_factor
from mmalign_diffusion.schedules import Flow, VariancePreserving, read_schedule
from mmalign_diffusion.weights import Weighting, step_weights

SD = read_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
FLOW = Flow(torch.arange(1, 1001, dtype=torch.float64) / 1000)
TIMESTEPS = torch.tensor([[1, 37], [412, 999]])
KINDS = ("epsilon", "v_prediction", "sample")


def weights(kind: str, weighting: Weighting, schedule=SD, timesteps=TIMESTEPS, gamma: float = 5.0) -> torch.Tensor:
    return step_weights(timesteps, schedule, kind, weighting=weighting, gamma=gamma)


def test_constant_is_one_whatever_is_predicted() -> None:
    for kind in KINDS:
        assert weights(kind, "constant").tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize("weighting", ["snr", "min_snr", "elbo"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_others_weight_the_same_error_whatever_is_predicted(kind: str, weighting: Weighting) -> None:
    factor = squared_error_factor(kind, *SD.coefficients(TIMESTEPS))
    torch.testing.assert_close(weights(kind, weighting) * factor, weights("sample", weighting), rtol=1e-12, atol=0)


def test_snr_is_the_plain_error_of_the_noise() -> None:
    torch.testing.assert_close(weights("epsilon", "snr"), torch.ones(2, 2).double(), rtol=1e-12, atol=0)


def test_min_snr_of_published_training_scripts() -> None:
    """min(SNR, gamma) / SNR for the noise, over SNR + 1 for v."""
    snr = SD.snr(TIMESTEPS)
    torch.testing.assert_close(weights("epsilon", "min_snr"), snr.clamp(max=5) / snr, rtol=1e-12, atol=0)
    torch.testing.assert_close(weights("v_prediction", "min_snr"), snr.clamp(max=5) / (snr + 1), rtol=1e-12, atol=0)


def test_half_the_elbo_weight_times_the_error_of_the_noise_is_the_term_of_the_bound() -> None:
    """T / 2 (SNR(t - 1) / SNR(t) - 1), which is T times the KL of the two steps per squared error."""
    snr, less = SD.snr(TIMESTEPS), SD.snr(TIMESTEPS - 1)
    torch.testing.assert_close(weights("epsilon", "elbo") / 2, 1000 / 2 * (less / snr - 1), rtol=1e-10, atol=0)
    (a, b), (next_a, next_b) = SD.coefficients(TIMESTEPS), SD.coefficients(TIMESTEPS - 1)
    # The KL of two DDPM steps whose noises differ by 1: the means differ by `slope`.
    variance = (next_b / b) ** 2 * (1 - (a / next_a) ** 2)
    slope = (next_b**2 - variance).sqrt() - next_a * b / a
    torch.testing.assert_close(weights("epsilon", "elbo") / 2, 1000 * slope**2 / (2 * variance), rtol=1e-9, atol=0)


def test_the_elbo_has_no_such_term_at_the_first_level() -> None:
    schedule = VariancePreserving(torch.tensor([0.9, 0.5], dtype=torch.float64))
    found = weights("epsilon", "elbo", schedule, torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([0.0, 2 * (9 / 1 - 1)])


def test_a_flow_has_weights_where_all_is_noise_unless_noise_is_predicted() -> None:
    last = torch.tensor([999])
    assert weights("flow", "snr", FLOW, last).tolist() == [0.0]
    assert weights("flow", "min_snr", FLOW, torch.tensor([499])).tolist() == pytest.approx([1 * 0.5**2])
    # Towards SNR 0, min(SNR, gamma) / SNR goes to 1.
    assert weights("epsilon", "min_snr", FLOW, last).tolist() == weights("epsilon", "snr", FLOW, last).tolist() == [1.0]
    with pytest.raises(ConfigError, match=r"modality.weight: 'elbo' .* 'epsilon' is not finite at timestep 999"):
        weights("epsilon", "elbo", FLOW, last)
