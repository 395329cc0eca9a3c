"""The modality `diffusion`: log-probs by hand, invariances, sampling, saving."""

from __future__ import annotations

import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from diffusion_cases import complete, linear, load, text_record
from image_records import image_record, write_image, write_image_pairs
from peft import PeftModel
from torch.nn.functional import logsigmoid

from mmalign import ConfigError, DataError, Decoding, LoRAParameters, Record
from mmalign.config.data import DataConfig
from mmalign.sources.source import open_source
from mmalign_diffusion.config import FamilyComponent, Noising, Timesteps
from mmalign_diffusion.decoding import DiffusionDecoding
from mmalign_diffusion.modality import Diffusion
from mmalign_objectives.pairs.dpo import dpo_loss


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    path = write_image_pairs(tmp_path_factory.mktemp("images"), 3)
    return list(open_source(DataConfig(path=str(path)), [], where="data.train"))


@pytest.fixture
def build(tiny_class_unet: Path) -> Any:
    def make(**fields: Any) -> Diffusion:
        family = FamilyComponent(name="class_unet", null_class=3)
        return Diffusion(**{"family": family, "model": str(tiny_class_unet), "drop_condition": 0.0, **fields})

    return make


# -- log-probs


def test_a_log_prob_by_hand() -> None:
    """At the level a = 0.8, b = 0.6, x0 = (1, -2) and noise e: x = 0.8 x0 + 0.6 e, prediction 0.5 x + 0.25."""
    modality = linear(timesteps=Timesteps(strategy="table", table=(1,)))
    model = load(modality)
    (one,) = complete(modality, model, [text_record()])
    noise = (one.tensors["noisy"][0] - 0.8 * torch.tensor([1.0, -2.0])) / 0.6
    torch.testing.assert_close(one.tensors["target"][0], noise)
    first, second = noise.tolist()
    errors = (first - 0.5 * (0.8 + 0.6 * first) - 0.25) ** 2, (second - 0.5 * (-1.6 + 0.6 * second) - 0.25) ** 2
    logps, mask = modality.step_log_probs(model.network, [one])
    assert logps.tolist() == [[pytest.approx(-0.5 * sum(errors) / 2, rel=1e-5)]] and mask.all()
    modality.reduction = "sum"
    assert modality.step_log_probs(model.network, [one])[0].item() == pytest.approx(-0.5 * sum(errors), rel=1e-5)


@pytest.mark.parametrize(("weight", "factor"), [("constant", 1.0), ("snr", 1.0), ("min_snr", 0.5 / (0.64 / 0.36))])
def test_weights_multiply_the_error(weight: Any, factor: float) -> None:
    modality = linear(timesteps=Timesteps(strategy="table", table=(1,)), weight=weight, snr_gamma=0.5)
    model = load(modality)
    (one,) = complete(modality, model, [text_record()])
    weighted = modality.step_log_probs(model.network, [one])[0].item()
    modality.weight = "constant"
    assert weighted == pytest.approx(factor * modality.step_log_probs(model.network, [one])[0].item(), rel=1e-5)


def test_several_draws_are_steps_whose_sum_is_the_mean_over_levels() -> None:
    modality = linear(timesteps=Timesteps(draws=3))
    model = load(modality)
    (one,) = complete(modality, model, [text_record()])
    assert one.steps == 3 and one.size == 3
    logps, _ = modality.step_log_probs(model.network, [one])
    singles = []
    for draw in range(3):
        tensors = {name: one.tensors[name][draw : draw + 1] for name in ("noisy", "target", "timesteps")}
        alone = type(one)({**one.tensors, **tensors}, steps=1, size=1)
        singles.append(modality.step_log_probs(model.network, [alone])[0].item())
    assert logps.sum().item() == pytest.approx(sum(singles) / 3, rel=1e-5)


def test_dpo_with_forward_noising_is_diffusion_dpo(build: Any, records: list[Record]) -> None:
    """-log sigmoid(-(beta / 2) ((mse_w - mse_l) - (mse_ref_w - mse_ref_l))), one noise and one level for a pair."""
    modality = build()
    model, reference = load(modality), load(modality)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight += 0.02 * torch.randn_like(weight)
    dark, bright = complete(modality, model, records[:1])
    assert torch.equal(dark.tensors["timesteps"], bright.tensors["timesteps"])
    torch.testing.assert_close(dark.tensors["target"], bright.tensors["target"])  # the noise
    errors = []
    for network in (model.network, reference.network):
        for one in (bright, dark):
            output = network(
                one.tensors["noisy"], one.tensors["timesteps"], one.tensors["condition|class"][None]
            ).sample
            errors.append((output - one.tensors["target"]).square().mean())
    expected = -logsigmoid(-250.0 * ((errors[0] - errors[1]) - (errors[2] - errors[3])))
    logps = [modality.step_log_probs(n, [bright, dark])[0].sum(1) for n in (model.network, reference.network)]
    losses, _ = dpo_loss(
        logps[0][:1], logps[0][1:], logps[1][:1], logps[1][1:], beta=500.0, label_smoothing=0.0, **_dpo_defaults()
    )
    assert losses.item() == pytest.approx(expected.item(), rel=1e-4)
    assert losses.item() != pytest.approx(math.log(2), rel=1e-3)


def _dpo_defaults() -> dict[str, Any]:
    from mmalign_objectives.pairs.dpo import DPOConfig

    return {name: value for name, value in DPOConfig().model_dump().items() if name not in ("beta", "label_smoothing")}


def test_rows_do_not_depend_on_their_neighbours_or_order(build: Any, records: list[Record]) -> None:
    modality = build(timesteps=Timesteps(draws=2))
    model = load(modality)
    encoded = complete(modality, model, records)
    together, mask = modality.step_log_probs(model.network, encoded)
    assert mask.all() and together.shape == (6, 2) and together.dtype == torch.float32
    alone = torch.cat([modality.step_log_probs(model.network, [one])[0] for one in encoded])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    backwards, _ = modality.step_log_probs(model.network, encoded[::-1])
    torch.testing.assert_close(backwards.flip(0), together, atol=1e-5, rtol=1e-5)


def test_completing_in_parts_changes_nothing(build: Any, records: list[Record]) -> None:
    modality = build(noising=Noising(strategy="ddim_inversion", steps=3, eta=0.1))
    model = load(modality)
    for one, other in zip(complete(modality, model, records), complete(modality, model, records, size=1), strict=True):
        assert one.tensors.keys() == other.tensors.keys()
        for name, value in one.tensors.items():
            torch.testing.assert_close(value, other.tensors[name], atol=1e-4, rtol=1e-4)


def test_images_of_two_sizes_are_scored_in_one_batch(tiny_class_unet: Path, tmp_path: Path) -> None:
    family = FamilyComponent(name="class_unet")
    modality = Diffusion(family=family, model=str(tiny_class_unet))
    modality.network_family.size = None  # as they are stored
    images = {"small": write_image(tmp_path / "s.png", 0.5, 0), "large": write_image(tmp_path / "l.png", 0.5, 1, 16)}
    row = image_record("a", "1", images)
    for media in row["media"]:
        media["uri"] = str(tmp_path / media["uri"])
    model = load(modality)
    encoded = complete(modality, model, [Record.from_dict(row)])
    assert [tuple(one.tensors["noisy"].shape) for one in encoded] == [(1, 1, 8, 8), (1, 1, 16, 16)]
    logps, _ = modality.step_log_probs(model.network, encoded[::-1])
    alone = [modality.step_log_probs(model.network, [one])[0] for one in encoded[::-1]]
    torch.testing.assert_close(logps, torch.cat(alone))


# -- prompts


def test_dropped_prompts_are_dropped_for_all_responses(build: Any, records: list[Record]) -> None:
    modality = build(drop_condition=0.5)
    torch.manual_seed(0)
    classes = [[int(one.tensors["token|class"]) for one in modality.encode(records[1])] for _ in range(40)]
    assert {tuple(pair) for pair in classes} == {(1, 1), (3, 3)}
    assert 8 <= sum(pair == [3, 3] for pair in classes) <= 32


def test_bad_prompts_and_responses_are_named(build: Any, records: list[Record]) -> None:
    modality = build()
    unknown = records[0].model_copy(update={"prompt": text_record("seven").prompt})
    with pytest.raises(DataError, match="record 'p0': expected the prompt to name one class"):
        modality.encode(unknown)
    with pytest.raises(DataError, match="record 'a', response 'r0': expected one image part, got 0"):
        modality.encode(text_record("1", "a text"))
    with pytest.raises(DataError, match="record 'a', response 'r0': expected an array of numbers"):
        linear().encode(text_record("1", "a text"))
    with pytest.raises(DataError, match=r"expected numbers of shape \(2,\), got \(3,\)"):
        linear().encode(text_record("1", "[1, 2, 3]"))
    with pytest.raises(DataError, match="record 'a': expected the prompt to be a goal"):
        linear().encode(text_record("home", "[1, 2]"))


# -- sampling


def test_sampling_repeats_itself_and_does_not_depend_on_how_it_is_cut(build: Any, records: list[Record]) -> None:
    modality, cut = build(generation_batch_size=64), build(generation_batch_size=3)
    network = load(modality).network
    prompts = [record.with_responses(()) for record in records]
    decoding = DiffusionDecoding(max_steps=4, guidance=2.0, eta=0.5)
    torch.manual_seed(5)
    groups = modality.generate(network, prompts, decoding, 4)
    torch.manual_seed(5)
    again = cut.generate(network, prompts, decoding, 4)
    assert [len(group) for group in groups] == [4, 4, 4]
    for one, other in zip(chain(*groups), chain(*again), strict=True):
        latents = one.encoded.tensors["latents"]
        torch.testing.assert_close(latents, other.encoded.tensors["latents"], atol=1e-4, rtol=1e-4)
        assert one.output.size == (8, 8) and one.output.mode == "L" and one.behaviour_logps is None
    assert not torch.equal(groups[0][0].encoded.tensors["latents"], groups[0][1].encoded.tensors["latents"])


def test_a_seeded_decoding_gives_a_prompt_the_same_noise_always(build: Any, records: list[Record]) -> None:
    modality = build()
    network = load(modality).network
    decoding = DiffusionDecoding(max_steps=2, seed=3)
    ((first,),) = modality.generate(network, records[:1], decoding, 1)
    _, (second,) = modality.generate(network, records[1::-1], decoding, 1)
    one, other = first.encoded.tensors["latents"], second.encoded.tensors["latents"]
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_any_decoding_says_how_many_steps() -> None:
    modality = linear()
    ((one,),) = modality.generate(load(modality).network, [text_record("1")], Decoding(max_steps=3), 1)
    assert len(one.output) == 2
    with pytest.raises(ConfigError, match="max_steps: 64; the model has 3 levels"):
        modality.generate(load(modality).network, [text_record("1")], Decoding(), 1)


def test_sampled_numbers_survive_being_stored() -> None:
    modality = linear()
    record = text_record("1")
    ((sampled,),) = modality.generate(load(modality).network, [record], DiffusionDecoding(max_steps=3), 1)
    stored = record.with_responses([sampled.response])
    (again,) = modality.encode(stored)
    assert torch.equal(again.tensors["data"], sampled.encoded.tensors["latents"])
    assert modality.decode(stored, sampled.response) == sampled.output


def test_guidance_without_a_null_condition_is_refused(tiny_class_unet: Path) -> None:
    family = FamilyComponent(name="class_unet")
    with pytest.raises(ConfigError, match=r"modality.guidance: 2.0, but this model has no null condition"):
        Diffusion(family=family, model=str(tiny_class_unet), guidance=2.0)
    with pytest.raises(ConfigError, match=r"modality.drop_condition: this model has no null condition"):
        Diffusion(family=family, model=str(tiny_class_unet), drop_condition=0.1)


def test_guidance_is_linear_in_the_two_predictions() -> None:
    """With noise = x / 2 + goal, guidance 3 from goal 0 to goal 1 is noise = x / 2 + 3."""
    modality = linear()
    network = load(modality).network
    conditions = modality.embed_prompts([modality.network_family.tokenise(text_record("1"))], 3.0)
    x = torch.tensor([[1.0, 2.0]])
    noise = modality.denoising(network).noise(x, torch.tensor([1]), conditions)
    torch.testing.assert_close(noise, 0.5 * x + 3)


# -- saving


def test_a_saved_model_loads_again_here_and_in_diffusers(build: Any, records: list[Record], tmp_path: Path) -> None:
    modality = build()
    model = load(modality)
    with torch.no_grad():
        next(model.network.parameters()).add_(0.1)
    modality.save(model, str(tmp_path))
    again = build(model=str(tmp_path))
    encoded = complete(modality, model, records[:1])
    expected = modality.step_log_probs(model.network, encoded)[0]
    torch.testing.assert_close(again.step_log_probs(load(again).network, encoded)[0], expected)
    assert UNet2DModel.from_pretrained(tmp_path).config.sample_size == 8
    assert modality.parameter_counts() == (sum(p.numel() for p in model.network.parameters()),) * 2


def test_an_adapter_is_the_reference_when_off_and_loads_again(
    build: Any, records: list[Record], tmp_path: Path, tiny_class_unet: Path
) -> None:
    modality = build(lora=LoRAParameters(rank=2))
    model, base = load(modality), load(build())
    encoded = complete(modality, model, records[:1])
    expected = modality.step_log_probs(base.network, encoded)[0]
    torch.testing.assert_close(modality.step_log_probs(model.network, encoded)[0], expected)
    with torch.no_grad():
        for name, weight in model.network.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    moved = modality.step_log_probs(model.network, encoded)[0]
    assert (moved - expected).abs().max() > 1e-4
    with model.network.disable_adapter():
        torch.testing.assert_close(modality.step_log_probs(model.network, encoded)[0], expected)
    modality.save(model, str(tmp_path / "adapter"))
    loaded = PeftModel.from_pretrained(UNet2DModel.from_pretrained(tiny_class_unet), tmp_path / "adapter")
    torch.testing.assert_close(modality.step_log_probs(loaded, encoded)[0], moved)
    modality.save_merged(model, str(tmp_path / "merged"))
    merged = build(model=str(tmp_path / "merged"))
    torch.testing.assert_close(merged.step_log_probs(load(merged).network, encoded)[0], moved, atol=1e-4, rtol=1e-4)
    assert model.network.training
