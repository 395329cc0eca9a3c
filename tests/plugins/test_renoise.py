"""Rules for the noise of an inversion step, against the closed forms of normal data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmalign_diffusion.ddim import ddim_step
from mmalign_diffusion.editability import Editability, autocorrelation
from mmalign_diffusion.gaussian_data import GaussianData
from mmalign_diffusion.inversion import invert, reconstruct, round_trip_error
from mmalign_diffusion.renoise import (
    DDIM_DESTINATION,
    DDIM_SOURCE,
    RENOISE_TURBO,
    SMPO,
    NoiseRule,
    StagedRule,
    estimate_noise,
    renoise,
)
from mmalign_diffusion.schedules import Flow, read_schedule

SD = read_schedule({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012})
FLOW = Flow(torch.arange(1, 1001, dtype=torch.float64) / 1000)
DATA = GaussianData(0.4, 0.6, SD)
LEVELS = torch.tensor([[1, 201, 401, 601, 801]])
START = torch.tensor([[0.85, -0.3]], dtype=torch.float64)
BOTH = pytest.mark.parametrize("data", [DATA, replace(DATA, schedule=FLOW)], ids=["diffusion", "flow"])


def run(data: GaussianData, rule: NoiseRule) -> Tensor:
    return invert(START, LEVELS, data.schedule, lambda rows: data.denoise, rule)


def round_trip(data: GaussianData, rule: NoiseRule) -> Tensor:
    return reconstruct(run(data, rule), LEVELS, data.schedule, lambda rows: data.denoise) - START


def exact(data: GaussianData) -> Tensor:
    x = START
    for now, then in zip(LEVELS[0, :-1], LEVELS[0, 1:], strict=True):
        x = data.undo_step(x, now.reshape(1), then.reshape(1))
    return x


@BOTH
def test_what_undoes_a_step_is_undone_by_it(data: GaussianData) -> None:
    back = reconstruct(exact(data), LEVELS, data.schedule, lambda rows: data.denoise)
    torch.testing.assert_close(back, START, rtol=1e-12, atol=1e-12)


def test_one_iteration_is_ddim_inversion_that_tells_the_destination() -> None:
    assert renoise(1) == DDIM_DESTINATION
    noise = DATA.denoise(START, LEVELS[:, 1])
    expected, _ = ddim_step(START, noise, LEVELS[:, 0], LEVELS[:, 1], SD, 0.0)
    found = invert(START, LEVELS[:, :2], SD, lambda rows: DATA.denoise, renoise(1))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


@BOTH
def test_endless_iterations_are_the_exact_inverse_of_the_sampler(data: GaussianData) -> None:
    torch.testing.assert_close(run(data, renoise(120)), exact(data), rtol=1e-12, atol=1e-12)
    assert round_trip(data, renoise(120)).abs().max() < 1e-12


def test_every_iteration_reduces_the_error_of_a_step_by_the_contraction_ratio() -> None:
    now, then = LEVELS[:, 2], LEVELS[:, 3]
    target = DATA.undo_step(START, now, then)
    moved = [
        invert(START, torch.stack([now, then], 1), SD, lambda rows: DATA.denoise, renoise(count))
        for count in range(1, 7)
    ]
    errors = [(one - target)[0, 0].item() for one in moved]
    ratio = DATA.contraction(now, then).item()
    assert 0 < ratio < 1
    assert [abs(one / other) for one, other in zip(errors[1:], errors[:-1], strict=True)] == pytest.approx([ratio] * 5)


@BOTH
def test_the_round_trip_error_falls_with_every_iteration(data: GaussianData) -> None:
    errors = [round_trip(data, renoise(count)).abs().mean().item() for count in (2, 3, 5, 8, 12)]
    assert errors == sorted(errors, reverse=True)


def test_averaging_two_iterates_helps_at_the_destination_and_hardly_at_the_source() -> None:
    """Root mean square over starts that are spread like the data; at 0.85 alone the source would do harm."""
    starts = torch.special.ndtri((torch.arange(40, dtype=torch.float64) + 0.5) / 40).unsqueeze(1) * 0.6 + 0.4
    rules = (DDIM_DESTINATION, SMPO, DDIM_SOURCE, replace(SMPO, told="source"))
    levels, select = LEVELS.expand(40, -1), lambda rows: DATA.denoise
    errors = [round_trip_error(starts, levels, SD, select, rule).square().mean().sqrt().item() for rule in rules]
    assert errors[1] < 0.8 * errors[0]
    assert 0.9 < errors[3] / errors[2] < 1.1
    assert abs(round_trip(DATA, rules[3])[0, 0]) > abs(round_trip(DATA, rules[2])[0, 0])


def test_averaging_noises_is_averaging_iterates() -> None:
    """The step is affine in the noise."""
    first, second, third = (run_step(renoise(count)) for count in (1, 2, 3))
    torch.testing.assert_close(run_step(SMPO), (first + second) / 2, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(run_step(renoise(3, averaged=3)), (first + second + third) / 3, rtol=1e-13, atol=1e-13)


def run_step(rule: NoiseRule) -> Tensor:
    noise = estimate_noise(START, LEVELS[:, 1], LEVELS[:, 2], SD, DATA.denoise, rule, START)
    return ddim_step(START, noise, LEVELS[:, 1], LEVELS[:, 2], SD, 0.0)[0]


@pytest.mark.parametrize(("rule", "told"), [(DDIM_SOURCE, 0), (DDIM_DESTINATION, 201), (SMPO, 201)])
def test_the_network_is_told_the_level_of_the_rule_and_none_below_zero(rule: NoiseRule, told: int) -> None:
    asked: list[int] = []

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        asked.extend(timesteps.tolist())
        return torch.zeros_like(x)

    estimate_noise(START, torch.tensor([-1]), torch.tensor([201]), SD, denoise, rule, START)
    assert asked == [told] * len(rule.weights)


def test_a_staged_rule_follows_the_level_that_each_row_goes_to() -> None:
    """Rows that go to 201 and to 401 in one batch, and so in separate ones."""
    rule = StagedRule(renoise(2), renoise(5), before=250)
    plan = torch.tensor([[1, 201], [201, 401]])
    x = START.expand(2, -1)
    together = invert(x, plan, SD, lambda rows: DATA.denoise, rule)
    for row, one in enumerate((rule.early, rule.late)):
        alone = invert(START, plan[row : row + 1], SD, lambda rows: DATA.denoise, one)
        assert torch.equal(together[row : row + 1], alone)


def test_the_released_rule_of_turbo_by_hand() -> None:
    """Predictions 0 to 4 of the first steps, 8 and 9 of the others."""
    assert RENOISE_TURBO.early.weights == (0.2,) * 5
    assert RENOISE_TURBO.late.weights == (0.0,) * 8 + (0.5,) * 2


def test_an_editability_that_corrects_nothing_changes_nothing_but_costs_a_forward_a_step() -> None:
    calls: list[int] = []

    def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
        calls.append(int(timesteps[0]))
        return DATA.denoise(x, timesteps)

    x = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    plain = invert(x, LEVELS, SD, lambda rows: denoise, renoise(3))
    assert len(calls) == 3 * 4
    idle = replace(renoise(3), editability=Editability(divergence=0.0, correlation=0.0))
    assert torch.equal(invert(x, LEVELS, SD, lambda rows: denoise, idle), plain)
    assert len(calls) == 3 * 4 + 4 * 4


def test_editability_leaves_less_correlation_in_the_noise_and_no_graph() -> None:
    """A stripe is an image whose noise is predicted as a stripe again."""
    x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
    x[..., ::2, :] = -1
    rules = renoise(2), replace(renoise(2), editability=Editability(divergence=0.0, correlation=0.5))
    plain, edited = (estimate_noise(x, LEVELS[:, 0], LEVELS[:, 1], SD, DATA.denoise, rule, x) for rule in rules)
    correlations = [autocorrelation(one, torch.Generator().manual_seed(5)).item() for one in (plain, edited)]
    assert correlations[1] < 0.9 * correlations[0]
    assert not edited.requires_grad


def test_rules_that_make_no_sense_are_errors() -> None:
    with pytest.raises(ValueError, match="sum is 1"):
        NoiseRule((0.5, 0.4))
    with pytest.raises(ValueError, match="sum is 1"):
        NoiseRule(())
    with pytest.raises(ValueError, match="expected 1 to 3 iterations, got 4"):
        renoise(3, averaged=4)
