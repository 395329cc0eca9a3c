"""Strategies that say which noise levels are trained on."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_diffusion.schedules import Flow, VariancePreserving, read_schedule
from mmalign_diffusion.timesteps import draw, log_snr, logit_normal, table, uniform

SD = read_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
STRATEGIES = {
    "uniform": uniform(1000, low=0, high=1000),
    "range": uniform(1000, low=0, high=200),
    "importance": logit_normal(1000, mean=0.5, std=1.0),
    "snr": log_snr(SD, low=0, high=1000),
    "table": table(1000, timesteps=[249, 499, 749, 999]),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", STRATEGIES)
def test_probabilities_are_such_and_draws_follow_them(name: str) -> None:
    probabilities = STRATEGIES[name]
    assert probabilities.shape == (1000,)
    assert (probabilities >= 0).all()
    assert probabilities.sum().item() == pytest.approx(1, rel=1e-12)
    drawn = draw(probabilities, 40_000, generator())
    assert (drawn.dtype, drawn.shape) == (torch.int64, (40_000,))
    assert (probabilities[drawn] > 0).all()
    # By tenths of the range: within four standard deviations.
    found = torch.bincount(drawn, minlength=1000).reshape(10, 100).sum(1) / 40_000
    expected = probabilities.reshape(10, 100).sum(1)
    assert ((found - expected).abs() <= 4 * (expected * (1 - expected) / 40_000).sqrt() + 1e-12).all()


def test_the_same_seed_draws_the_same_and_the_generator_moves_on() -> None:
    source = generator(7)
    first, second = (draw(STRATEGIES["uniform"], 8, source) for _ in range(2))
    assert torch.equal(first, draw(STRATEGIES["uniform"], 8, generator(7)))
    assert not torch.equal(first, second)


def test_the_ends_of_a_range_are_drawn_and_nothing_beside_them() -> None:
    drawn = draw(uniform(1000, low=3, high=6), 500, generator())
    assert sorted(set(drawn.tolist())) == [3, 4, 5]


def test_the_logit_normal_by_hand() -> None:
    """Half of the draws are below sigmoid(mean), and 68.27 % within one deviation of it."""
    below = STRATEGIES["importance"].cumsum(0)
    assert below[round(1000 / (1 + math.exp(-0.5))) - 1].item() == pytest.approx(0.5, abs=1e-3)
    low, high = (round(1000 / (1 + math.exp(-level))) for level in (-0.5, 1.5))
    assert (below[high - 1] - below[low - 1]).item() == pytest.approx(0.6827, abs=1e-3)


def test_log_snr_is_uniform() -> None:
    """Levels at SNR 16, 4, 1, 1/16: equal logarithmic steps of 1, 1 and 2, shared by the levels at their ends."""
    snr = torch.tensor([16.0, 4.0, 1.0, 1 / 16], dtype=torch.float64)
    schedule = VariancePreserving(snr / (1 + snr))
    assert log_snr(schedule, low=0, high=4).tolist() == pytest.approx([0.5 / 4, 1 / 4, 1.5 / 4, 1 / 4])
    assert log_snr(schedule, low=1, high=3).tolist() == pytest.approx([0, 0.5, 0.5, 0])


def test_log_snr_leaves_out_what_is_nothing_but_noise() -> None:
    """Sigmas 0.2, 0.5, 1: SNRs 16, 1 and 0."""
    found = log_snr(Flow(torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)), low=0, high=3)
    assert found.tolist() == pytest.approx([0.5, 0.5, 0])


def test_a_timestep_twice_in_the_table_is_drawn_twice_as_often() -> None:
    assert table(4, timesteps=[1, 1, 3]).tolist() == pytest.approx([0, 2 / 3, 0, 1 / 3])


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="expected 0 <= low < high <= 10, got 5 and 5"):
        uniform(10, low=5, high=5)
    with pytest.raises(ValueError, match=r"expected some in 0\.\.9, got \[10\]"):
        table(10, timesteps=[10])
    with pytest.raises(ValueError, match="with noise and signal"):
        log_snr(Flow(torch.tensor([0.5, 1.0])), low=0, high=2)
