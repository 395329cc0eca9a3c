"""Denoising errors and the presets of DPO and policy gradients for diffusion models."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign.registry import load_object, load_registry
from mmalign.specs import ObjectiveSpec
from mmalign_objectives.denoising import denoising_errors
from mmalign_objectives.dpo import DiffusionDPOConfig, dpo_loss

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


def test_presets_are_the_shared_losses() -> None:
    dpo, clipped = SPECS["dpo"], SPECS["grpo"]
    for name in ("diffusion_dpo", "inpo"):
        assert (SPECS[name].loss, SPECS[name].needs, SPECS[name].per) == (dpo.loss, dpo.needs, dpo.per)
    for name in ("ddpo_is", "flow_grpo", "dance_grpo"):
        assert (SPECS[name].loss, SPECS[name].needs, SPECS[name].per) == (clipped.loss, clipped.needs, clipped.per)
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
