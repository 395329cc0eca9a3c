"""Levels and noise of the modality `diffusion`: shared, seeded, fixed."""

from __future__ import annotations

from typing import Any

import torch
from diffusion_cases import complete, linear, load, text_record

from mmalign_diffusion.config import Noising, Timesteps
from mmalign_diffusion.modality import Diffusion


def test_responses_share_level_and_noise_unless_asked_not_to() -> None:
    for noise, shared in (("shared", True), ("independent", False)):
        modality = linear(noising=Noising(noise=noise))
        record = text_record("0.25", "[1, 2]", "[3, 4]")
        one, other = complete(modality, load(modality), [record])
        assert torch.equal(one.tensors["timesteps"], other.tensors["timesteps"])
        assert torch.allclose(one.tensors["target"], other.tensors["target"], atol=1e-5) == shared


def test_draws_follow_the_seed_and_fixed_ones_the_record() -> None:
    free, fixed = linear(), linear(timesteps=Timesteps(fixed=True))
    assert free.stochastic_encoding and not fixed.stochastic_encoding
    model = load(fixed)
    record = text_record()

    def noisy(modality: Diffusion, seed: int) -> Any:
        return complete(modality, model, [record], seed=seed)[0].tensors["noisy"]

    assert torch.equal(noisy(free, 1), noisy(free, 1)) and not torch.equal(noisy(free, 1), noisy(free, 2))
    assert torch.equal(noisy(fixed, 1), noisy(fixed, 2))


def test_what_the_policy_inverts_is_never_kept() -> None:
    inverted = linear(timesteps=Timesteps(fixed=True), noising=Noising(strategy="ddim_inversion", steps=2))
    assert inverted.stochastic_encoding and inverted.required_networks == {"policy"}
    anchored = linear(
        timesteps=Timesteps(fixed=True), noising=Noising(strategy="renoise", steps=2, network="reference")
    )
    assert not anchored.stochastic_encoding and anchored.required_networks == {"reference"}
