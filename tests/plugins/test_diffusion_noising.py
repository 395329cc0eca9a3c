"""Ways to the noisy latent: forward, DDIM inversion, ReNoise, with exact denoisers and in runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusion_cases import complete, load, networks_of
from pydantic import ValidationError

from mmalign import Record
from mmalign_diffusion.augmentation import ROUND_TRIP
from mmalign_diffusion.config import FamilyComponent, Noising, Timesteps
from mmalign_diffusion.modality import Diffusion

RECORD = Record.from_text("go", ["[0.7, 0.7, 0.7]", "[0.2, -1.0, 0.5]"], id="a")


def build(timestep: int, **noising: Any) -> Diffusion:
    family = FamilyComponent(name="custom", target="linear_denoiser:build_point_mass")
    timesteps = Timesteps(strategy="table", table=(timestep,))
    return Diffusion(family=family, noising=Noising(**noising), timesteps=timesteps)


def tau(modality: Diffusion, row: int) -> torch.Tensor:
    return complete(modality, load(modality), [RECORD])[row].tensors["target"][0]


def test_inversion_of_a_point_mass_finds_the_same_noise_at_every_level() -> None:
    """All data are 0.7, so is the first response: the noise that its inversion finds is that of the first step."""
    found = [tau(build(level, strategy="ddim_inversion", steps=10, variant="source"), 0) for level in (3, 17, 30, 49)]
    for one in found[1:]:
        torch.testing.assert_close(one, found[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["ddim_inversion", "renoise"])
def test_inversion_finds_what_denoises_to_the_clean_latents(strategy: str) -> None:
    """tau and the noisy latents are consistent: (x_t - a x0) / b = tau, at the drawn level itself."""
    modality = build(23, strategy=strategy, steps=5)
    model = load(modality)
    a, b = modality.network_family.schedule.coefficients(torch.tensor(23))
    for one, clean in zip(complete(modality, model, [RECORD]), ([0.7, 0.7, 0.7], [0.2, -1.0, 0.5]), strict=True):
        expected = float(a) * torch.tensor(clean) + float(b) * one.tensors["target"][0]
        torch.testing.assert_close(one.tensors["noisy"][0], expected, atol=1e-5, rtol=1e-5)
        assert one.tensors["timesteps"].tolist() == [23]


def test_inversion_leaves_no_graph() -> None:
    modality = build(23, strategy="ddim_inversion", steps=5)
    model = load(modality)
    encoded = complete(modality, model, [RECORD])
    assert not any(value.requires_grad for one in encoded for value in one.tensors.values())
    assert all(weight.grad is None for weight in model.network.parameters())
    logps, _ = modality.step_log_probs(model.network, encoded)
    assert logps.requires_grad


def test_the_random_part_is_shared_or_not_as_the_noise_is() -> None:
    plain = build(40, strategy="ddim_inversion", steps=5)
    for noise in ("shared", "independent"):
        random = build(40, strategy="ddim_inversion", steps=5, eta=0.1, noise=noise)
        moved = [tau(random, row) - tau(plain, row) for row in (0, 1)]
        assert all((one.abs() > 1e-4).any() for one in moved)


def test_official_levels_land_beside_the_drawn_one() -> None:
    """Labels 1, 11, 21, ...: those below 23 are left, the last at 21, which leads to 31."""
    exact = build(23, strategy="ddim_inversion", steps=5, variant="source")
    official = build(23, strategy="ddim_inversion", steps=5, variant="source", level="official")
    at_grid = build(31, strategy="ddim_inversion", steps=5, variant="source", level="official")
    model = load(exact)
    latents = [complete(one, model, [RECORD])[1].tensors["noisy"] for one in (exact, official, at_grid)]
    assert not torch.allclose(latents[0], latents[1])
    torch.testing.assert_close(latents[1], latents[2])


def test_the_error_of_the_round_trip_is_measured_where_asked() -> None:
    modality = build(49, strategy="ddim_inversion", steps=10, round_trip=1.0)
    model = load(modality)
    torch.manual_seed(0)
    _, measured = modality.augment(networks_of(modality, model), modality.encode(RECORD))
    assert measured[ROUND_TRIP].shape == (2,) and measured[ROUND_TRIP].isfinite().all()
    # The sampler brings everything to the one point that it knows: 0.7 is returned, the other response is not.
    assert measured[ROUND_TRIP][0] < 0.05 < measured[ROUND_TRIP][1]
    never = build(49, strategy="ddim_inversion", steps=10)
    assert never.augment(networks_of(never, model), never.encode(RECORD))[1] == {}


def test_more_corrections_come_closer_to_the_exact_inverse() -> None:
    """A linear denoiser: denoising back what ReNoise found returns to the start, the closer the more iterations."""
    errors = []
    for iterations in (1, 2, 8):
        family = FamilyComponent(name="custom", target="linear_denoiser:build", arguments={"weight": 0.3})
        noising = Noising(strategy="renoise", steps=3, iterations=iterations, round_trip=1.0)
        modality = Diffusion(
            family=family,
            noising=noising,
            timesteps=Timesteps(strategy="table", table=(2,)),
            drop_condition=0.0,
        )
        record = Record.from_text("0.5", ["[1.0, -2.0]"], id="a")
        _, measured = modality.augment(networks_of(modality, load(modality)), modality.encode(record))
        errors.append(float(measured[ROUND_TRIP]))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "renoise", "average": 2}, "average: expected 1 to the 1 iterations, got 2"),
        ({"strategy": "ddim_inversion", "iterations": 2}, "strategy 'ddim_inversion' takes none; use renoise"),
        ({"round_trip": 0.5}, "forward noising is not an inversion"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Noising(**settings)
