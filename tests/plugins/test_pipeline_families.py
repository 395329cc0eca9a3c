"""Families of diffusers pipelines: prompts, latents, predictions and samples are those of the pipelines themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from image_records import image_record, write_image
from peft import PeftModel
from pipeline_cases import CPU, FAMILIES, LENGTHS, PROMPT, build_family, build_modality, load_pipeline
from torch import Tensor

from mmalign import DataError, LoRAParameters, MediaLimits, Record
from mmalign_diffusion.families.flux import pack, unpack
from mmalign_diffusion.families.pipeline import PipelineFamily
from mmalign_diffusion.prediction import Conditions, Denoising
from mmalign_diffusion.sampler import sample, sampling_plan

Build = Callable[..., Path]


def prompt_arguments(name: str) -> dict[str, Any]:
    """What every pipeline is called with, beside steps, latents and guidance."""
    shared = {"prompt": PROMPT, "height": 16, "width": 16}
    if name in LENGTHS:
        shared["max_sequence_length"] = LENGTHS[name]
    return shared


def run_pipeline(folder: Path, name: str, start: Tensor, output: str) -> Tensor:
    """Samples four steps with guidance 3."""
    arguments = {**prompt_arguments(name), "num_inference_steps": 4, "output_type": output, "latents": start}
    if name == "flux":
        arguments |= {"latents": pack(start), "negative_prompt": "", "true_cfg_scale": 3.0}
    else:
        arguments["guidance_scale"] = 3.0
    if name == "sd3":  # its own levels are spaced otherwise
        arguments["sigmas"] = [1.0, 0.75, 0.5, 0.25]
    if name == "pixart":
        arguments["use_resolution_binning"] = False
    images: Tensor = load_pipeline(folder)(**arguments).images
    return unpack(images, 8, 8) if name == "flux" and output == "latent" else images


def sample_here(family: PipelineFamily, start: Tensor) -> Tensor:
    network = family.load(device=CPU, dtype=torch.float32)
    given, null = family.embed([family.tokenise_text(PROMPT), family.null_tokens])
    conditions = Conditions([given], [null], 3.0)
    denoising = Denoising(family, network, family.prediction)
    levels = sampling_plan(4, family.schedule.steps, "trailing")
    return sample(denoising, conditions, start, levels, eta=0.0, generators=[])


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_with_guidance_are_those_of_the_pipeline(tiny_pipeline: Build, name: str) -> None:
    folder = tiny_pipeline(name)
    family = build_family(folder, name)
    start = torch.randn(1, *family.latent_shape(), generator=torch.Generator().manual_seed(0))
    latents = sample_here(family, start)
    assert (latents - start).abs().max() > 0.1
    torch.testing.assert_close(latents, run_pipeline(folder, name, start, "latent"), atol=1e-4, rtol=1e-4)
    pixels = (family.to_pixels(latents).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(pixels, run_pipeline(folder, name, start, "pt"), atol=1e-4, rtol=1e-4)


def test_samples_of_a_velocity_model_are_those_of_the_pipeline(tiny_pipeline: Build) -> None:
    folder = tiny_pipeline("stable_diffusion", prediction="v_prediction")
    family = build_family(folder, "stable_diffusion")
    assert family.prediction == "v_prediction"
    start = torch.randn(1, *family.latent_shape(), generator=torch.Generator().manual_seed(0))
    expected = run_pipeline(folder, "stable_diffusion", start, "latent")
    torch.testing.assert_close(sample_here(family, start), expected, atol=1e-4, rtol=1e-4)


def encode_in_pipeline(folder: Path, name: str) -> list[dict[str, Tensor]]:
    """What the pipeline makes of the prompt and of no prompt, by our names."""
    pipeline = load_pipeline(folder)
    length = {"max_sequence_length": LENGTHS[name]} if name in LENGTHS else {}
    if name == "flux":
        found = [pipeline.encode_prompt(text, text, **length) for text in (PROMPT, "")]
        return [{"hidden": hidden[0], "pooled": pooled[0]} for hidden, pooled, _ in found]
    if name == "sd3":
        found = pipeline.encode_prompt(PROMPT, PROMPT, PROMPT, **length)
    elif name == "pixart":
        hidden, mask, null, null_mask = pipeline.encode_prompt(PROMPT, **length)
        return [{"hidden": hidden[0], "mask": mask[0]}, {"hidden": null[0], "mask": null_mask[0]}]
    elif name == "stable_diffusion":
        found = pipeline.encode_prompt(PROMPT, CPU, 1, True)
        return [{"hidden": hidden[0]} for hidden in found]
    else:
        found = pipeline.encode_prompt(PROMPT)
    return [{"hidden": found[one][0], "pooled": found[two][0]} for one, two in ((0, 2), (1, 3))]


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_and_no_prompt_are_encoded_as_in_the_pipeline(tiny_pipeline: Build, name: str) -> None:
    folder = tiny_pipeline(name)
    family = build_family(folder, name)
    embedded = family.embed([family.tokenise(Record.from_text(f" {PROMPT} ", [], id="a")), family.null_tokens])
    for own, expected in zip(embedded, encode_in_pipeline(folder, name), strict=True):
        assert own.keys() == expected.keys()
        for key, value in own.items():
            torch.testing.assert_close(value, expected[key], atol=1e-5, rtol=1e-5)


def test_without_t5_its_part_of_the_condition_is_zero(tiny_pipeline: Build, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_pipeline("sd3"), tmp_path / "sd3")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index))
    family = build_family(folder, "sd3")
    (own,) = family.embed([family.tokenise_text(PROMPT)])
    expected = encode_in_pipeline(folder, "sd3")[0]["hidden"]
    torch.testing.assert_close(own["hidden"], expected)
    assert own["hidden"].shape == (36, 64) and not own["hidden"][24:].any()
    left_out = build_family(tiny_pipeline("sd3"), "sd3", t5=False)
    assert torch.equal(left_out.embed([left_out.tokenise_text(PROMPT)])[0]["hidden"], own["hidden"])


def test_latents_are_the_posteriors_mode_scaled_and_shifted(tiny_pipeline: Build) -> None:
    family = build_family(tiny_pipeline("sd3"), "sd3")
    vae = load_pipeline(tiny_pipeline("sd3")).vae
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        expected = (vae.encode(pixels).latent_dist.mode() - 0.1) * 1.5
    torch.testing.assert_close(family.to_latents(pixels, [1, 2]), expected)
    with torch.no_grad():
        image = vae.decode(expected / 1.5 + 0.1).sample
    torch.testing.assert_close(family.to_pixels(expected), image)


def test_latents_may_be_drawn_by_seed(tiny_pipeline: Build) -> None:
    """They differ from the mode by the posterior's deviation times normal numbers, not those of the added noise."""
    folder = tiny_pipeline("stable_diffusion")
    mode, drawn = (build_family(folder, "stable_diffusion", posterior=one) for one in ("mode", "sample"))
    pixels = torch.rand(1, 3, 16, 16).expand(3, -1, -1, -1) * 2 - 1
    rows = drawn.to_latents(pixels, [5, 5, 6])
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    std = torch.stack([row["std"] for row in mode.autoencoder.encode(pixels)])
    noise = (rows - mode.to_latents(pixels)) / (mode.autoencoder.normalise(std))
    assert 0.8 < noise.std() < 1.2
    forward = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5))
    assert torch.corrcoef(torch.stack([noise[0].flatten(), forward.flatten()]))[0, 1].abs() < 0.3


# -- micro-conditions


def read(family: Any, tmp_path: Path, width: int, height: int) -> tuple[Tensor, dict[str, Tensor]]:
    from PIL import Image

    path = tmp_path / f"{width}x{height}.png"
    Image.new("RGB", (width, height), "red").save(path)
    row = image_record("a", PROMPT, {"r0": path})
    row["media"][0]["uri"] = str(path)
    record = Record.model_validate(row)
    result: tuple[Tensor, dict[str, Tensor]] = family.read_with_details(record, record.responses[0], MediaLimits())
    return result


def test_sdxl_is_told_size_and_crop_of_an_image(tiny_pipeline: Build, tmp_path: Path) -> None:
    """An image of 40 x 20 is scaled to 32 x 16, and 8 columns are cut off at either side."""
    family = build_family(tiny_pipeline("sdxl"), "sdxl")
    pixels, details = read(family, tmp_path, 40, 20)
    assert pixels.shape == (3, 16, 16)
    assert details["time_ids"].tolist() == [20, 40, 0, 8, 16, 16]
    network = family.load(device=CPU, dtype=torch.float32)
    condition = family.collate(family.embed([family.tokenise_text(PROMPT)]))
    x = torch.randn(1, 4, 8, 8)

    def predict(*told: float) -> Tensor:
        own = {**condition, "time_ids": torch.tensor([told])} if told else condition
        with torch.no_grad():
            output: Tensor = family.predict(network, x, torch.tensor([500]), own)
        return output

    torch.testing.assert_close(predict(), predict(16, 16, 0, 0, 16, 16))
    assert (predict() - predict(20, 40, 0, 8, 16, 16)).abs().max() > 1e-3


def test_details_of_a_stored_image_reach_the_network_and_those_of_a_sampled_one_do(
    tiny_pipeline: Build, tmp_path: Path
) -> None:
    from diffusion_cases import complete, load

    modality = build_modality(tiny_pipeline("sdxl"), "sdxl", drop_condition=0.0)
    model = load(modality)
    path = write_image(tmp_path / "a.png", 0.5, 0, size=20)
    row = image_record("a", PROMPT, {"r0": path})
    row["media"][0]["uri"] = str(path)
    record = Record.model_validate(row)
    (stored,) = complete(modality, model, [record])
    assert stored.tensors["condition|time_ids"].tolist() == [20, 20, 0, 0, 16, 16]
    from mmalign_diffusion.decoding import DiffusionDecoding

    ((generated,),) = modality.generate(model.network, [record], DiffusionDecoding(max_steps=2), 1)
    assert generated.encoded.tensors["detail|time_ids"].tolist() == [16, 16, 0, 0, 16, 16]


def test_buckets_keep_the_aspect_ratio(tiny_pipeline: Build, tmp_path: Path) -> None:
    family = build_family(tiny_pipeline("sdxl"), "sdxl", buckets=True, bucket_step=4)
    pixels, details = read(family, tmp_path, 200, 100)
    assert pixels.shape == (3, 12, 20) and details["time_ids"].tolist() == [100, 200, 0, 2, 12, 20]
    assert family.latent_shape(pixels.shape) == (4, 6, 10)
    assert read(family, tmp_path, 90, 100)[0].shape == (3, 16, 16)


# -- precision, skeletons, saving


def test_the_denoiser_is_trained_in_its_dtype_and_encoders_keep_theirs(tiny_pipeline: Build) -> None:
    family = build_family(tiny_pipeline("stable_diffusion"), "stable_diffusion")
    network = family.load(device=CPU, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        (condition,) = family.embed([family.tokenise_text(PROMPT)])
        latents = family.to_latents(torch.zeros(1, 3, 16, 16))
        output = family.predict(network, latents, torch.tensor([3]), family.collate([condition]))
    assert (condition["hidden"].dtype, latents.dtype, output.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    other = build_family(tiny_pipeline("stable_diffusion"), "stable_diffusion", encoder_dtype="bfloat16")
    assert other.embed([other.tokenise_text(PROMPT)])[0]["hidden"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", FAMILIES)
def test_an_exported_adapter_and_merged_weights_predict_the_same(
    tiny_pipeline: Build, tmp_path: Path, name: str
) -> None:
    folder = tiny_pipeline(name)
    modality = build_modality(folder, name, lora=LoRAParameters(rank=2, alpha=6.0))
    torch.manual_seed(0)
    model = modality.load(device=CPU, dtype=torch.float32)
    counts = modality.parameter_counts()
    assert counts is not None and counts[1] == sum(p.numel() for p in model.network.parameters() if p.requires_grad)
    with torch.no_grad():
        for key, weight in model.network.named_parameters():
            if "lora_B" in key:
                weight.normal_(std=0.3)
    family: Any = modality.network_family
    condition = family.collate(family.embed([family.tokenise_text(PROMPT)]))
    x = torch.randn(1, 4, 8, 8)

    @torch.no_grad()
    def predict(network: Any) -> Tensor:
        output: Tensor = family.predict(network, x, torch.tensor([500]), condition)
        return output

    moved = predict(model.network)
    with model.network.disable_adapter():
        assert (predict(model.network) - moved).abs().max() > 1e-2
    modality.save(model, str(tmp_path / "adapter"))
    pipeline = load_pipeline(folder)
    if name == "pixart":
        loaded: Any = PeftModel.from_pretrained(pipeline.transformer, tmp_path / "adapter")
    else:
        pipeline.load_lora_weights(tmp_path / "adapter")
        loaded = getattr(pipeline, family.part)
    torch.testing.assert_close(predict(loaded), moved, atol=1e-5, rtol=1e-4)
    modality.save_merged(model, str(tmp_path / "merged"))
    merged = getattr(diffusers, family.denoiser_class).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(predict(merged), moved, atol=1e-4, rtol=1e-3)
    again = build_family(folder, name, denoiser=str(tmp_path / "merged"))
    torch.testing.assert_close(predict(again.load(device=CPU, dtype=torch.float32)), predict(merged))


def test_an_empty_prompt_is_refused(tiny_pipeline: Build) -> None:
    family = build_family(tiny_pipeline("stable_diffusion"), "stable_diffusion")
    with pytest.raises(DataError, match="record 'a': the prompt has no text"):
        family.tokenise(Record.from_text(" ", [], id="a"))


def test_packing_is_undone() -> None:
    latents = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    assert pack(latents).shape == (2, 6, 12)
    assert torch.equal(unpack(pack(latents), 4, 6), latents)
