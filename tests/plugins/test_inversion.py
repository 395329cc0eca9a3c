"""Inversion: plans, rows that land at levels of their own, and errors against data whose denoiser is known exactly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mmalign_diffusion.gaussian_data import GaussianData
from mmalign_diffusion.inversion import invert, level_plan, official_level_plan, reconstruct, round_trip_error
from mmalign_diffusion.renoise import DDIM_DESTINATION, DDIM_SOURCE, SMPO, NoiseRule, renoise
from mmalign_diffusion.schedules import Flow, read_schedule

SD_CONFIG: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SD = read_schedule(SD_CONFIG)
FLOW = Flow(torch.arange(1, 1001, dtype=torch.float64) / 1000)
DATA = GaussianData(0.4, 0.6, SD)
RULES = {"source": DDIM_SOURCE, "destination": DDIM_DESTINATION, "smpo": SMPO, "renoise": renoise(4, averaged=2)}


def latents(count: int) -> Tensor:
    return torch.randn(count, 2, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def grid_of(count: int, first: int = 1, last: int = 999) -> Tensor:
    return torch.tensor([[round(first + index * (last - first) / count) for index in range(count + 1)]])


def terminal_error(count: int, rule: NoiseRule, data: GaussianData) -> float:
    """Difference to the probability flow after an inversion from level 1 to 899."""
    x, grid = torch.tensor([[0.85]], dtype=torch.float64), grid_of(count, last=899)
    exact = data.transport(x, grid[:, 0], grid[:, -1])
    return (invert(x, grid, data.schedule, lambda rows: data.denoise, rule) - exact).item()


# -- plans ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 999), min_size=1, max_size=5), st.integers(1, 1000))
def test_a_plan_rises_from_clean_to_exactly_the_target(targets: list[int], count: int) -> None:
    plan = level_plan(torch.tensor(targets), count=count, steps=1000)
    assert plan.shape == (len(targets), count + 1)
    assert plan[:, 0].tolist() == [-1] * len(targets)
    assert plan[:, -1].tolist() == targets
    assert (plan.diff(dim=1) >= 0).all()
    # Nobody takes a longer step than an even grid has.
    assert plan.diff(dim=1).max() <= -(-1000 // count)
    # A row has landed once, and stays.
    reached = (plan == plan[:, -1:]).int()
    assert (reached.diff(dim=1) >= 0).all()


def official(t: int, told: str) -> list[int]:
    plan = official_level_plan(torch.tensor([t]), count=10, steps=1000, offset=1, told=told)[0].tolist()
    return [level for index, level in enumerate(plan) if index == 0 or level != plan[index - 1]]


def test_the_plan_of_the_released_code_by_hand() -> None:
    """Labels -99, 1, 101, ... below t, each a step of 100 from there; or 1, 101, ... below t, each a step to there."""
    assert official(250, "source") == [-99, 1, 101, 201, 301]
    assert official(250, "destination") == [-99, 1, 101, 201]
    assert official(0, "source") == [-99, 1]
    assert official(0, "destination") == official(1, "destination") == [-99]
    assert official(999, "source")[-1] == official(999, "destination")[-1] == 901


@given(st.integers(0, 999))
def test_the_plan_of_the_released_code_lands_within_a_step_of_the_target(t: int) -> None:
    above, below = official(t, "source")[-1], official(t, "destination")[-1]
    assert 0 <= above - t < 101 or t > 901
    assert 0 <= t - below <= 100


@pytest.mark.parametrize(
    ("targets", "count", "message"), [([1000], 10, r"in 0\.\.999"), ([-1], 10, r"in 0\.\.999"), ([5], 0, "count")]
)
def test_a_plan_that_makes_no_sense_is_an_error(targets: list[int], count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        level_plan(torch.tensor(targets), count=count, steps=1000)


# -- one step, against diffusers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_one", [True, False])
def test_steps_are_those_of_the_inverse_scheduler_of_diffusers(to_one: bool) -> None:
    """It tells the network the level that is gone to, starts below its grid, and does the same all the way up."""
    scheduler = diffusers.DDIMInverseScheduler(
        **SD_CONFIG, clip_sample=False, set_alpha_to_one=to_one, steps_offset=1, timestep_spacing="leading"
    )
    scheduler.alphas_cumprod = SD.coefficients(torch.arange(1000))[0] ** 2
    scheduler.initial_alpha_cumprod = torch.tensor(1.0).double() if to_one else scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(10)
    schedule = read_schedule({**SD_CONFIG, "set_alpha_to_one": to_one})
    data = GaussianData(0.4, 0.6, schedule)
    x = latents(1)
    expected = x
    for timestep in scheduler.timesteps:
        noise = data.denoise(expected, timestep.reshape(1))
        expected = scheduler.step(noise, timestep, expected).prev_sample
    plan = official_level_plan(torch.tensor([999]), count=10, steps=1000, offset=1, told="destination")
    found = invert(x, plan, schedule, lambda rows: data.denoise, DDIM_DESTINATION)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_denoising_back_is_the_sampler_of_diffusers() -> None:
    scheduler = diffusers.DDIMScheduler(**SD_CONFIG, clip_sample=False, steps_offset=1, timestep_spacing="leading")
    scheduler.alphas_cumprod = SD.coefficients(torch.arange(1000))[0] ** 2
    scheduler.set_timesteps(10)
    expected = x = latents(1)
    for timestep in scheduler.timesteps:
        expected = scheduler.step(DATA.denoise(expected, timestep.reshape(1)), timestep, expected).prev_sample
    plan = official_level_plan(torch.tensor([999]), count=10, steps=1000, offset=1, told="destination")
    torch.testing.assert_close(reconstruct(x, plan, SD, lambda rows: DATA.denoise), expected, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    sizes = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 4}
    return diffusers.UNet2DModel(sample_size=8, in_channels=2, out_channels=2, **blocks, **sizes).eval()


def serve(unet: Any) -> Any:
    """The denoiser of any rows: this network knows no prompts."""
    return lambda rows: lambda x, timesteps: unet(x, timesteps).sample


@torch.no_grad()
def test_a_network_is_inverted_as_diffusers_does_it(unet: Any) -> None:
    """Rows with targets of their own, in one batch; diffusers one by one, over the same levels."""
    scheduler = diffusers.DDIMInverseScheduler(
        **SD_CONFIG, clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"
    )
    scheduler.set_timesteps(10)
    schedule = read_schedule({**SD_CONFIG, "set_alpha_to_one": False})
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(4))
    targets = torch.tensor([999, 350, 150])
    plan = official_level_plan(targets, count=10, steps=1000, offset=1, told="destination")
    found = invert(x, plan, schedule, serve(unet), DDIM_DESTINATION)
    for row, target in enumerate(targets.tolist()):
        expected = x[row : row + 1]
        for timestep in scheduler.timesteps[scheduler.timesteps < target]:
            expected = scheduler.step(unet(expected, timestep).sample, timestep, expected).prev_sample
        torch.testing.assert_close(found[row : row + 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("told", ["source", "destination"])
def test_iterating_undoes_the_steps_of_a_network(unet: Any, told: str) -> None:
    """Told the destination, five iterations bring the way back much closer; told the source, they do not."""
    x = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(5))
    plan = level_plan(torch.tensor([400, 700]), count=10, steps=1000)
    once, often = (round_trip_error(x, plan, SD, serve(unet), replace(renoise(count), told=told)) for count in (1, 5))
    assert (often < 0.2 * once).all() == (told == "destination")


# -- rows -----------------------------------------------------------------------------------------------------------


class Counting:
    """The denoiser of rows of data with means of their own; keeps what it was asked."""

    def __init__(self, means: Sequence[float]) -> None:
        self.means, self.asked = torch.tensor(means, dtype=torch.float64), 0

    def select(self, rows: Tensor) -> Any:
        means = self.means[rows].reshape(-1, 1, 1, 1)

        def denoise(x: Tensor, timesteps: Tensor) -> Tensor:
            assert len(x) == len(timesteps) == len(means)
            assert bool((timesteps >= 0).all())
            self.asked += len(x)
            return replace(DATA, mean=0.0).denoise(
                x - means * SD.coefficients(timesteps)[0].reshape(-1, 1, 1, 1), timesteps
            )

        return denoise


@pytest.mark.parametrize("rule", RULES)
def test_rows_do_not_see_each_other_and_those_that_have_landed_cost_nothing(rule: str) -> None:
    x, targets = latents(4), torch.tensor([0, 250, 999, 620])
    denoisers = Counting([0.0, 0.4, -1.0, 2.0])
    plan = level_plan(targets, count=10, steps=1000)
    together = invert(x, plan, SD, denoisers.select, RULES[rule])
    assert denoisers.asked == (1 + 3 + 10 + 7) * len(RULES[rule].weights)
    for row in range(4):
        alone = Counting([denoisers.means[row].item()])
        short = level_plan(targets[row : row + 1], count=10, steps=1000)
        torch.testing.assert_close(
            together[row : row + 1], invert(x[row : row + 1], short, SD, alone.select, RULES[rule])
        )


@pytest.mark.parametrize("rule", RULES)
def test_a_round_trip_goes_back_over_the_levels_of_every_row(rule: str) -> None:
    x, plan = latents(3), level_plan(torch.tensor([30, 250, 998]), count=200, steps=1000)
    denoisers = Counting([0.0, 0.4, -1.0])
    errors = round_trip_error(x, plan, SD, denoisers.select, RULES[rule])
    assert errors.shape == (3,)
    assert (errors < 0.06).all()
    back = reconstruct(invert(x, plan, SD, denoisers.select, RULES[rule]), plan, SD, denoisers.select)
    torch.testing.assert_close(errors, (back - x).flatten(1).square().mean(1).sqrt())


def test_a_plan_that_stays_costs_nothing_and_changes_nothing() -> None:
    denoisers, x = Counting([0.0]), latents(1)
    assert torch.equal(invert(x, torch.tensor([[5, 5, 5]]), SD, denoisers.select, SMPO), x)
    assert denoisers.asked == 0


def test_half_precision_latents_come_out_in_float32_and_no_graph_stays() -> None:
    layer = nn.Linear(3, 3)
    x = latents(2).bfloat16().requires_grad_()
    plan = level_plan(torch.tensor([10, 700]), count=5, steps=1000)
    found = invert(x, plan, SD, lambda rows: lambda x, timesteps: layer(x), DDIM_SOURCE)
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    assert not reconstruct(found, plan, SD, lambda rows: lambda x, timesteps: layer(x)).requires_grad
    assert (found != x.float()).all()


# -- fresh noise ----------------------------------------------------------------------------------------------------


def test_fresh_noise_is_added_in_units_of_the_sampler() -> None:
    """One step from 100 to 300: x + eta std(300 to 100) z."""
    x, z = latents(2), latents(2).flip(0).unsqueeze(1)
    plan = torch.tensor([[100, 300]] * 2)
    plain, noisy = (invert(x, plan, SD, lambda rows: DATA.denoise, DDIM_SOURCE, eta=eta, noise=z) for eta in (0.0, 0.1))
    now, then = (SD.coefficients(torch.tensor(t))[0].item() ** 2 for t in (300, 100))
    std = ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
    torch.testing.assert_close(noisy - plain, 0.1 * std * z.squeeze(1), rtol=1e-9, atol=1e-12)


def test_eta_without_noise_is_an_error() -> None:
    with pytest.raises(ValueError, match="one draw for every row and step"):
        invert(latents(1), torch.tensor([[1, 2]]), SD, lambda rows: DATA.denoise, DDIM_SOURCE, eta=0.1)


def test_a_plan_for_other_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected a plan for 2 rows"):
        invert(latents(2), torch.tensor([[1, 2]]), SD, lambda rows: DATA.denoise, DDIM_SOURCE)


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [SD, FLOW], ids=["diffusion", "flow"])
@pytest.mark.parametrize("rule", [DDIM_SOURCE, DDIM_DESTINATION], ids=["source", "destination"])
def test_halving_the_step_halves_the_terminal_error(rule: NoiseRule, schedule: Any) -> None:
    """On a flow only below sigma = 1: there x0 no longer follows from the noise, and the error is h log h."""
    data = replace(DATA, schedule=schedule)
    errors = [terminal_error(count, rule, data) for count in (62, 125, 249, 499)]
    ratios = [one / other for one, other in itertools.pairwise(errors)]
    assert ratios == pytest.approx([2.0] * 3, rel=0.12)


@given(st.integers(1, 40), st.sampled_from([SD, FLOW]), st.floats(-2, 2))
def test_a_single_point_is_inverted_exactly_in_any_number_of_steps(count: int, schedule: Any, noise: float) -> None:
    """All noisy latents are a m + b noise, and at the level at hand the denoiser always sees this noise."""
    data = GaussianData(0.4, 0.0, schedule)
    levels = grid_of(count, last=998)
    a, b = schedule.coefficients(levels)
    points = a * 0.4 + b * noise
    found = invert(points[:, :1], levels, schedule, lambda rows: data.denoise, DDIM_SOURCE)
    torch.testing.assert_close(found, points[:, -1:], rtol=1e-9, atol=1e-9)


def test_the_noise_of_a_single_point_is_the_same_at_every_level() -> None:
    """tau = (x_t - a x0) / b, which is what InPO trains on."""
    data = GaussianData(0.4, 0.0, SD)
    targets = torch.tensor([1, 77, 500, 999])
    first = torch.zeros(4, 1, dtype=torch.long)
    a, b = SD.coefficients(first)
    plan = torch.cat([first, targets.unsqueeze(1)], 1)
    found = invert(a * 0.4 + b * 0.7, plan, SD, lambda rows: data.denoise, DDIM_SOURCE).squeeze(1)
    a, b = SD.coefficients(targets)
    assert ((found - a * 0.4) / b).tolist() == pytest.approx([0.7] * 4, rel=1e-9)
