"""Denoising errors and the presets of DPO and policy gradients for diffusion models."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign.contract.specs import ObjectiveSpec
from mmalign.import_strings import load_object
from mmalign.plugins.registry import load_registry
from mmalign_objectives.conformance.diffusion import alpha_bars_of, compute_diffusion_dpo, compute_inpo
from mmalign_objectives.pairs.dpo import DiffusionDPOConfig, dpo_loss
from mmalign_objectives.support.denoising import denoising_errors

SPECS: dict[str, ObjectiveSpec] = {entry.spec.name: entry.spec for entry in load_registry().entries("objective")}


def test_an_error_is_minus_twice_the_log_prob() -> None:
    assert denoising_errors(torch.tensor([-0.25, 0.0])).tolist() == [0.5, 0.0]


def test_diffusion_dpo_by_hand_with_the_half_of_the_official_code() -> None:
    """Errors of the policy 0.01 below and 0.01 above the reference's, beta 100: z = -100 / 2 x (-0.02) = 1."""
    errors = torch.tensor([0.19, 0.31, 0.20, 0.30], dtype=torch.float64)
    losses, metrics = dpo_loss(*(-errors[:, None] / 2), beta=100.0, label_smoothing=0.0)
    assert metrics["reward_margins"].item() == pytest.approx(1.0, rel=1e-12)
    assert losses.item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-12)


def test_a_sum_over_entries_is_a_mean_with_as_many_times_the_beta() -> None:
    logps = torch.tensor([-0.19, -0.31, -0.20, -0.30], dtype=torch.float64)[:, None]
    (mean, _), (total, _) = (dpo_loss(*(scale * logps), beta=100.0 / scale, label_smoothing=0.0) for scale in (1, 64))
    assert torch.allclose(mean, total, rtol=1e-12)


def test_a_model_that_cannot_tell_two_users_apart_is_at_ln_2_at_best() -> None:
    """One pair that two users label in opposite ways: any margin other than 0 costs more."""
    logps = torch.tensor([[0.0, -0.02, 0.05, 3.0]], dtype=torch.float64)
    zeros = torch.zeros_like(logps)
    one, other = (
        dpo_loss(*pair, zeros[0], zeros[0], beta=100.0, label_smoothing=0.0)[0]
        for pair in ((logps[0], zeros[0]), (zeros[0], logps[0]))
    )
    mean = (one + other) / 2
    assert mean[0].item() == pytest.approx(math.log(2), rel=1e-15)
    assert bool((mean[1:] > math.log(2)).all())


def make_case() -> dict[str, torch.Tensor]:
    """Two pairs of images, the noise at their timesteps, and the noise that policy and reference predict."""
    generator = torch.Generator().manual_seed(0)
    names = ("x0_w", "x0_l", "noise", "eps_pol_w", "eps_pol_l", "eps_ref_w", "eps_ref_l")
    return {name: torch.randn(2, 1, 2, 2, generator=generator, dtype=torch.float64) for name in names}


def invert(case: dict[str, torch.Tensor], timesteps: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same case as one of InPO whose inverted latents are those of the noise."""
    alpha_bars = alpha_bars_of(timesteps)[:, None, None, None]
    inputs = {"x0_w": case["x0_w"], "x0_l": case["x0_l"], "inv_timesteps": timesteps}
    for side in "wl":
        inputs[f"inv_x_{side}"] = alpha_bars.sqrt() * case[f"x0_{side}"] + (1 - alpha_bars).sqrt() * case["noise"]
        inputs |= {f"inv_{who}_{side}": case[f"eps_{who}_{side}"] for who in ("pol", "ref")}
    return inputs


def test_inpo_on_noised_images_is_diffusion_dpo() -> None:
    case = make_case()
    inpo = compute_inpo(invert(case, torch.tensor([30, 700])), {"beta": 2.0})
    dpo = compute_diffusion_dpo(case, {"beta": 2.0})
    assert torch.allclose(inpo["tau_w"], case["noise"], rtol=1e-9)
    assert torch.allclose(inpo["per_pair"], dpo["per_pair"], rtol=1e-9)


def test_the_half_of_inpo_is_that_of_a_gaussian() -> None:
    """beta times the log-ratio of N(x0(t), (1 - ab) / ab) at the image, per entry, with x0(t) from the predictions."""
    case, timesteps = make_case(), torch.tensor([30, 700])
    inputs = invert(case, timesteps)
    alpha_bars = alpha_bars_of(timesteps)[:, None, None, None]
    deviation = ((1 - alpha_bars) / alpha_bars).sqrt()

    def log_density(who: str, side: str) -> torch.Tensor:
        mean = inputs[f"inv_x_{side}"] / alpha_bars.sqrt() - deviation * inputs[f"inv_{who}_{side}"]
        return torch.distributions.Normal(mean, deviation).log_prob(case[f"x0_{side}"]).flatten(1).mean(dim=1)

    ratios = [log_density("pol", side) - log_density("ref", side) for side in "wl"]
    inside = compute_inpo(inputs, {"beta": 2.0})["inside"]
    assert torch.allclose(inside, 2.0 * (ratios[0] - ratios[1]), rtol=1e-9)


def test_presets_are_the_shared_losses() -> None:
    dpo, clipped = SPECS["dpo"], SPECS["grpo"]
    for name in ("diffusion_dpo", "inpo"):
        assert (SPECS[name].loss, SPECS[name].names, SPECS[name].per) == (dpo.loss, dpo.names, dpo.per)
    for name in ("ddpo_is", "flow_grpo", "dance_grpo"):
        assert (SPECS[name].loss, SPECS[name].names, SPECS[name].per) == (clipped.loss, clipped.names, clipped.per)
        config = load_object(SPECS[name].config)()
        assert (config.clip_low, config.clip_high, config.aggregation) == (1e-4, 1e-4, "sequence_mean")
    assert DiffusionDPOConfig().beta == 5000


@pytest.mark.parametrize("alias", ["flow_dpo", "lightgen", "ppd"])
def test_other_names_of_the_same_loss_find_it(alias: str) -> None:
    assert load_registry().find("objective", alias, "here").spec.name == "diffusion_dpo"


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (("diffusion_dpo", "inpo", "mapo", "diffusion_kto"), ("surrogate",)),
        (("d3po", "d3po_online", "ddpo_is", "ddpo_sf", "flow_grpo", "dance_grpo", "reg_grpo"), ("exact",)),
        (("smpo", "seppo"), ("exact", "surrogate")),
    ],
)
def test_a_loss_is_for_the_kind_of_log_probs_that_it_reads(names: tuple[str, ...], kinds: tuple[str, ...]) -> None:
    assert {SPECS[name].log_prob_kinds for name in names} == {kinds}
