"""The modality `diffusion_path`: exact log-probs of sampled steps, and policy gradients on them."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusion_cases import load

from mmalign import ConfigError, DataError, Record
from mmalign_diffusion.config import FamilyComponent
from mmalign_diffusion.decoding import DiffusionDecoding
from mmalign_diffusion.path_modality import DiffusionPath
from mmalign_diffusion.testing import build_tiny_class_unet

PROMPTS = [Record.from_text("0", id="a"), Record.from_text("2", id="b")]


@pytest.fixture(scope="module")
def tiny_flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_class_unet(tmp_path_factory.mktemp("flow") / "unet", prediction="flow")


def build(model: Path, **fields: Any) -> DiffusionPath:
    family = FamilyComponent(name="class_unet", null_class=3)
    return DiffusionPath(**{"family": family, "model": str(model), **fields})


def sampled(modality: DiffusionPath, network: Any, decoding: DiffusionDecoding, count: int = 2) -> list[Any]:
    torch.manual_seed(1)
    return list(chain(*modality.generate(network, PROMPTS, decoding, count)))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize(
    ("sde", "fields"),
    [
        ("ddim", {}),
        ("ddim", {"eta": 0.5, "reduction": "sum"}),
        ("flow_grpo", {"eta": 0.7}),
        ("dance_grpo", {"eta": 0.3}),
    ],
)
def test_behaviour_log_probs_are_those_of_the_sampled_steps(
    tiny_class_unet: Path, tiny_flow: Path, sde: Any, fields: dict[str, Any], guidance: float, temperature: float
) -> None:
    modality = build(tiny_class_unet if sde == "ddim" else tiny_flow, sde=sde, guidance=guidance, **fields)
    network = load(modality).network
    paths = sampled(modality, network, DiffusionDecoding(max_steps=5, temperature=temperature))
    modality.temperature = temperature
    logps, mask = modality.step_log_probs(network, [one.encoded for one in paths])
    assert logps.shape == (4, 4) and mask.all(), "the last of five steps has no noise"
    tolerance = 1e-3 * (64 if modality.reduction == "sum" else 1)
    torch.testing.assert_close(logps, torch.stack([one.behaviour_logps for one in paths]), atol=tolerance, rtol=1e-4)
    assert logps.requires_grad


def test_a_log_prob_by_hand() -> None:
    """From (a, b) = (0.6, 0.8) to (0.8, 0.6) with eta 1: variance (0.36 / 0.64) (1 - 0.36 / 0.64) = 0.24609."""
    modality = DiffusionPath(family=FamilyComponent(name="custom", target="linear_denoiser:build"))
    network = load(modality).network
    one = modality.generate(network, [Record.from_text("0.25", id="a")], DiffusionDecoding(max_steps=3), 1)[0][0]
    x, after = one.encoded.tensors["x"][0], one.encoded.tensors["following_x"][0]
    noise = 0.5 * x + 0.25
    variance = 0.36 / 0.64 * (1 - 0.36 / 0.64)
    mean = 0.8 * (x - 0.8 * noise) / 0.6 + math.sqrt(0.36 - variance) * noise
    density = -((after - mean) ** 2) / (2 * variance) - 0.5 * math.log(2 * math.pi * variance)
    assert one.behaviour_logps[0].item() == pytest.approx(density.mean().item(), rel=1e-4)
    assert one.encoded.tensors["levels"].tolist() == [2, 1] and one.encoded.tensors["following"].tolist() == [1, 0]


def test_a_window_and_a_fraction_choose_what_is_trained(tiny_class_unet: Path) -> None:
    windowed = build(tiny_class_unet, window=(1, 3))
    network = load(windowed).network
    for one in sampled(windowed, network, DiffusionDecoding(max_steps=5)):
        assert one.encoded.tensors["levels"].tolist() == [799, 599] and one.encoded.steps == 2
    half = build(tiny_class_unet, fraction=0.5)
    paths = sampled(half, network, DiffusionDecoding(max_steps=8), count=6)
    assert {one.encoded.steps for one in paths} == {4}
    assert len({tuple(one.encoded.tensors["levels"].tolist()) for one in paths}) > 1
    logps, _ = half.step_log_probs(network, [one.encoded for one in paths])
    torch.testing.assert_close(logps, torch.stack([one.behaviour_logps for one in paths]), atol=1e-3, rtol=1e-4)


def test_steps_outside_of_the_window_are_deterministic(tiny_class_unet: Path) -> None:
    modality = build(tiny_class_unet, window=(3, 4), shared_noise=True)
    network = load(modality).network
    one, other = sampled(modality, network, DiffusionDecoding(max_steps=5))[:2]
    torch.testing.assert_close(one.encoded.tensors["x"], other.encoded.tensors["x"], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(one.encoded.tensors["following_x"], other.encoded.tensors["following_x"])


def test_a_group_starts_from_one_noise_if_asked(tiny_class_unet: Path) -> None:
    for shared in (True, False):
        modality = build(tiny_class_unet, shared_noise=shared)
        paths = sampled(modality, load(modality).network, DiffusionDecoding(max_steps=3))
        starts = [one.encoded.tensors["x"][0] for one in paths]
        assert torch.equal(starts[0], starts[1]) == shared
        assert not torch.equal(starts[0], starts[2]), "another prompt"


def test_what_cannot_be_is_refused(tiny_class_unet: Path, tiny_flow: Path) -> None:
    with pytest.raises(ConfigError, match=r"modality.sde: 'ddim' does not suit .* use flow_grpo or dance_grpo"):
        build(tiny_flow)
    with pytest.raises(ConfigError, match=r"modality.sde: 'flow_grpo' does not suit .* use ddim"):
        build(tiny_class_unet, sde="flow_grpo")
    with pytest.raises(ConfigError, match=r"modality.eta: 2.0; sde 'ddim' takes 0 to 1"):
        build(tiny_class_unet, eta=2.0)
    with pytest.raises(DataError, match="record 'a', response 'r0': modality diffusion_path scores only paths"):
        build(tiny_class_unet).encode(Record.from_text("1", ["x"], id="a"))
    modality = build(tiny_class_unet, window=(4, 5))
    with pytest.raises(ConfigError, match=r"modality.window: no random step"):
        sampled(modality, load(modality).network, DiffusionDecoding(max_steps=5))


@pytest.mark.parametrize("detach_null", [False, True])
def test_scoring_some_steps_at_a_time_changes_no_gradient(tiny_class_unet: Path, detach_null: bool) -> None:
    whole = build(tiny_class_unet, guidance=2.0, detach_null=detach_null)
    parts = build(tiny_class_unet, guidance=2.0, detach_null=detach_null, steps_per_pass=3)
    network = load(whole).network
    paths = [one.encoded for one in sampled(whole, network, DiffusionDecoding(max_steps=5))]
    gradients = []
    for modality in (whole, parts):
        logps, _ = modality.step_log_probs(network, paths)
        gradients.append(torch.autograd.grad(logps.sum(), list(network.parameters()), allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_without_gradient_through_the_null_prediction_only_its_class_is_left_alone(tiny_class_unet: Path) -> None:
    for detach_null in (False, True):
        modality = build(tiny_class_unet, guidance=2.0, detach_null=detach_null)
        network = load(modality).network
        paths = [one.encoded for one in sampled(modality, network, DiffusionDecoding(max_steps=3))]
        logps, _ = modality.step_log_probs(network, paths)
        (gradient,) = torch.autograd.grad(logps.sum(), [network.class_embedding.weight])
        assert bool((gradient[3] == 0).all()) == detach_null, "class 3 is the null condition"
        assert bool((gradient[0] != 0).any())
