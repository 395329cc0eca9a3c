"""Settings of diffusers: read with the defaults of their classes, honoured, or refused by name before weights load."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from pipeline_cases import CPU, FAMILIES, build_family, build_modality, load_pipeline

from mmalign import ConfigError, DataError, Record
from mmalign_diffusion.families import find_family
from mmalign_diffusion.families.class_defaults import UNKNOWN, as_json, find_defaults
from mmalign_diffusion.families.class_settings import HONOURED, read_network, read_scheduler
from mmalign_diffusion.families.folders import read_prediction
from mmalign_diffusion.families.pipeline_checks import PIPELINES
from mmalign_diffusion.schedules import read_schedule
from mmalign_diffusion.weights import step_weights

Build = Callable[..., Path]
Edit = Callable[..., Path]


@pytest.fixture
def edited(tiny_pipeline: Build, tmp_path: Path) -> Edit:
    """Copies a tiny pipeline and changes one file of settings; a value of `...` takes the key away."""

    def edit(name: str, file: str, **changes: Any) -> Path:
        folder = Path(shutil.copytree(tiny_pipeline(name), tmp_path / name, dirs_exist_ok=True))
        settings = {**json.loads((folder / file).read_text()), **changes}
        (folder / file).write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))
        return folder

    return edit


# -- defaults of classes ----------------------------------------------------------------------------------------------

SCHEDULERS = [name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax")]


@pytest.mark.parametrize(
    "name", [*HONOURED, "DDIMScheduler", "PNDMScheduler", "LCMScheduler", "EulerDiscreteScheduler"]
)
def test_defaults_read_from_the_source_are_those_of_the_signature(name: str) -> None:
    signature = list(inspect.signature(getattr(diffusers, name).__init__).parameters.values())[1:]
    found = find_defaults(name)
    assert found is not None and list(found) == [one.name for one in signature]
    for one in signature:
        assert found[one.name] is UNKNOWN or found[one.name] == as_json(one.default)
    assert sum(value is UNKNOWN for value in found.values()) == 0


def test_every_honoured_setting_is_one_of_the_class() -> None:
    for name, settings in HONOURED.items():
        assert settings <= set(find_defaults(name) or ())
    assert find_defaults("NoSuchClass") is None


def test_reading_settings_imports_neither_torch_nor_diffusers() -> None:
    code = "from mmalign_diffusion.families.class_defaults import find_defaults as f; f('AutoencoderKL'); import sys"
    code += "; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_an_autoencoder_that_says_little_has_the_defaults_of_its_class(edited: Edit, name: str) -> None:
    """0.18215 and no shift, as `from_pretrained` reads the same folder."""
    names = ("scaling_factor", "shift_factor", "force_upcast", "latents_mean", "latents_std")
    folder = edited(name, "vae/config.json", **dict.fromkeys(names, ...))
    theirs = diffusers.AutoencoderKL.from_pretrained(folder / "vae").config
    values = torch.randn(2, 4, 3, 3)
    ours = build_family(folder, name).autoencoder
    torch.testing.assert_close(ours.normalise(values), values * theirs.scaling_factor)
    assert theirs.scaling_factor == 0.18215 and ours.dtype == torch.float32


def test_means_and_deviations_of_latents_are_those_of_the_sdxl_pipeline(edited: Edit) -> None:
    mean, std = [0.5, -1.0, 0.0, 2.0], [2.0, 1.0, 0.5, 4.0]
    folder = edited("sdxl", "vae/config.json", latents_mean=mean, latents_std=std)
    family = build_family(folder, "sdxl")
    latents = torch.randn(2, 4, 8, 8)
    pipeline = load_pipeline(folder)
    unscaled = latents * torch.tensor(std).view(1, 4, 1, 1) / pipeline.vae.config.scaling_factor
    expected = pipeline.vae.decode(unscaled + torch.tensor(mean).view(1, 4, 1, 1)).sample
    torch.testing.assert_close(family.to_pixels(latents), expected, rtol=1e-4, atol=1e-5)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    mode = pipeline.vae.encode(pixels).latent_dist.mode()
    wanted = (mode - torch.tensor(mean).view(1, 4, 1, 1)) * pipeline.vae.config.scaling_factor
    torch.testing.assert_close(
        family.to_latents(pixels), wanted / torch.tensor(std).view(1, 4, 1, 1), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if "beta_schedule" in (find_defaults(name) or ())])
def test_a_scheduler_that_says_only_its_class_has_the_levels_of_that_class(name: str) -> None:
    settings = read_scheduler({"_class_name": name}, "here")
    try:
        theirs = getattr(diffusers, name)()
    except ImportError as error:
        pytest.skip(str(error))
    if not isinstance(getattr(theirs, "alphas_cumprod", None), torch.Tensor) or settings.get("use_flow_sigmas"):
        pytest.skip("its levels are not in alphas_cumprod")
    schedule = read_schedule(settings)
    signal, _ = schedule.coefficients(torch.arange(schedule.steps))
    torch.testing.assert_close(signal**2, theirs.alphas_cumprod.double(), rtol=2e-4, atol=1e-6)
    assert read_prediction(settings) == theirs.config.get("prediction_type", "epsilon")


def test_where_sampling_ends_follows_the_class_of_the_scheduler() -> None:
    def final(**settings: Any) -> float:
        return float(read_schedule(read_scheduler(settings, "here")).coefficients(torch.tensor([-1]))[0])

    assert final(_class_name="DDIMScheduler") == 1 == final(_class_name="EulerDiscreteScheduler")
    assert final(_class_name="PNDMScheduler") < 1, "its default of set_alpha_to_one is False"
    assert final(_class_name="EulerDiscreteScheduler", final_sigmas_type="sigma_min") < 1


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_a_network_without_a_size_needs_one_and_a_pair_is_height_and_width(edited: Edit) -> None:
    for value in (None, ...):
        folder = str(edited("stable_diffusion", "unet/config.json", sample_size=value))
        with pytest.raises(ConfigError, match=r"modality.size: missing; .*unet/config.json names no sample_size"):
            find_family("stable_diffusion")(folder)
        assert find_family("stable_diffusion")(folder, (16, 32)).latent_shape() == (4, 8, 16)
    folder = str(edited("stable_diffusion", "unet/config.json", sample_size=[8, 16]))
    assert find_family("stable_diffusion")(folder).size == (16, 32)
    with pytest.raises(ConfigError, match="sample_size: expected a number or"):
        find_family("stable_diffusion")(str(edited("stable_diffusion", "unet/config.json", sample_size=[8, 0])))
    with pytest.raises(ConfigError, match="sample_size: expected a number or"):
        find_family("stable_diffusion")(str(edited("stable_diffusion", "unet/config.json", sample_size=8.5)))


def test_families_whose_class_has_a_size_take_it(edited: Edit) -> None:
    assert find_family("sd3")(str(edited("sd3", "transformer/config.json", sample_size=...))).size == (256, 256)
    assert find_family("flux")(str(edited("flux", "transformer/config.json"))).size == (256, 256)


# -- guidance that a network is told ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stable_diffusion", "sdxl"])
def test_a_distilled_network_is_told_its_guidance_as_the_pipeline_tells_it(edited: Edit, name: str) -> None:
    folder = edited(name, "unet/config.json")
    settings = dict(diffusers.UNet2DConditionModel.load_config(folder / "unet"))
    network = diffusers.UNet2DConditionModel.from_config({**settings, "time_cond_proj_dim": 32})
    network.save_pretrained(folder / "unet")
    family = build_family(folder, name, embedded_guidance=4.0)
    loaded = family.load(device=CPU, dtype=torch.float32)
    seen: list[Any] = []
    loaded.register_forward_pre_hook(lambda _, __, named: seen.append(named["timestep_cond"]), with_kwargs=True)
    tokens = family.tokenise(Record.from_text("a red cat", id="a"))
    family.predict(loaded, torch.zeros(1, 4, 8, 8), torch.tensor([10]), family.collate(family.embed([tokens])))
    expected = load_pipeline(folder).get_guidance_scale_embedding(torch.tensor([4.0 - 1]), embedding_dim=32)
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)
    assert family.null_tokens is None
    with pytest.raises(ConfigError, match=r"modality.guidance: 7.5, but this model has no null condition"):
        build_modality(folder, name, guidance=7.5)


def test_pixart_is_told_sizes_where_its_settings_say_so(edited: Edit) -> None:
    latents = torch.zeros(1, 4, 8, 8)
    for value, side, told in ((True, 8, True), (False, 128, False), (None, 128, True), (None, 8, False)):
        folder = edited("pixart", "transformer/config.json", use_additional_conditions=value, sample_size=side)
        described = build_family(folder, "pixart")._describe_size(latents, torch.float32)
        assert (described["resolution"] is not None) == told


# -- what is refused --------------------------------------------------------------------------------------------------

UNET, VAE, TRANSFORMER, SCHEDULER = (
    "unet/config.json",
    "vae/config.json",
    "transformer/config.json",
    "scheduler/scheduler_config.json",
)
REFUSED: Mapping[str, tuple[str, str, dict[str, Any], str]] = {
    "an inpainting network": ("stable_diffusion", UNET, {"in_channels": 9}, "in_channels: 9, .* gives 4; .*inpainting"),
    "a learned variance": ("stable_diffusion", UNET, {"out_channels": 8}, "out_channels: 8; expected 4"),
    "class embeddings": ("stable_diffusion", UNET, {"num_class_embeds": 10}, "num_class_embeds: 10 .* not supported"),
    "class embeddings by type": ("sdxl", UNET, {"class_embed_type": "timestep"}, "class_embed_type: 'timestep'"),
    "embeddings of images": ("stable_diffusion", UNET, {"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type"),
    "added embeddings": ("stable_diffusion", UNET, {"addition_embed_type": "text"}, "addition_embed_type: 'text'"),
    "no added embeddings": (
        "sdxl",
        UNET,
        {"addition_embed_type": None},
        "addition_embed_type: None; expected 'text_time'",
    ),
    "boxes": ("stable_diffusion", UNET, {"attention_type": "gated"}, "attention_type: 'gated'"),
    "times by Fourier features": ("stable_diffusion", UNET, {"time_embedding_type": "fourier"}, "time_embedding_type"),
    "a setting of tomorrow": ("stable_diffusion", UNET, {"new_input_dim": 3}, "new_input_dim: 3 is unknown to UNet2D"),
    "another network": (
        "stable_diffusion",
        UNET,
        {"_class_name": "UNet3DConditionModel"},
        "a UNet3DConditionModel; exp",
    ),
    "a control transformer": ("flux", TRANSFORMER, {"in_channels": 32}, "in_channels: 32, .* gives 16; .*control"),
    "gated attention of PixArt": ("pixart", TRANSFORMER, {"attention_type": "gated"}, "attention_type: 'gated'"),
    "another normalisation": ("pixart", TRANSFORMER, {"norm_type": "ada_norm"}, "norm_type: 'ada_norm'"),
    "a later SD3": ("sd3", TRANSFORMER, {"control_dim": 3}, "control_dim: 3 is unknown to SD3Transformer2DModel"),
    "quantised by its settings": (
        "flux",
        TRANSFORMER,
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        "quantised by bitsandbytes",
    ),
    "a tiny autoencoder": (
        "stable_diffusion",
        VAE,
        {"_class_name": "AutoencoderTiny"},
        "AutoencoderTiny; expected a Aut",
    ),
    "a shift that the pipeline passes over": ("stable_diffusion", VAE, {"shift_factor": 0.1}, "shift_factor: 0.1"),
    "means that it passes over": ("flux", VAE, {"latents_mean": [0.0, 1.0, 0.0, 0.0]}, "latents_mean"),
    "an autoencoder with alpha": ("stable_diffusion", VAE, {"in_channels": 4}, "in_channels: 4; expected 3, of RGB"),
    "a tiny autoencoder by its index": (
        "stable_diffusion",
        "model_index.json",
        {"vae": ["diffusers", "AutoencoderTiny"]},
        r"has a AutoencoderTiny \(of diffusers\) as vae; expected AutoencoderKL",
    ),
    "another denoiser by its index": (
        "sd3",
        "model_index.json",
        {"transformer": ["diffusers", "FluxTransformer2DModel"]},
        "expected SD3Transformer2DM",
    ),
    "a pipeline of nobody's": (
        "flux",
        "model_index.json",
        {"_class_name": "FluxFillPipeline"},
        "holds a FluxFillPipeline; expected FluxPipeline",
    ),
    "an unknown scheduler": (
        "sdxl",
        SCHEDULER,
        {"_class_name": "MyScheduler"},
        "diffusers .* has no class 'MyScheduler'",
    ),
    "a scheduler of continuous times": (
        "sdxl",
        SCHEDULER,
        {"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"},
        "timestep_type",
    ),
    "levels that the class passes over": (
        "sdxl",
        SCHEDULER,
        {"_class_name": "PNDMScheduler", "rescale_betas_zero_snr": True},
        "rescale_betas_zero_snr: True is unknown to PNDMScheduler",
    ),
    "texts of another width": (
        "stable_diffusion",
        UNET,
        {"cross_attention_dim": 48},
        "48, but the text encoders give 32",
    ),
    "captions of another width": (
        "pixart",
        TRANSFORMER,
        {"caption_channels": 48},
        "caption_channels: 48, but .* give 32",
    ),
    "texts of another T5": (
        "flux",
        TRANSFORMER,
        {"joint_attention_dim": 48},
        "joint_attention_dim: 48, but .* give 32",
    ),
    "texts of other CLIPs": (
        "sd3",
        TRANSFORMER,
        {"pooled_projection_dim": 48},
        "pooled_projection_dim: 48, but .* give 64",
    ),
    "a refiner": (
        "sdxl",
        UNET,
        {"projection_class_embeddings_input_dim": 72},
        "with six sizes: .*: 72, but .* give 80",
    ),
    "means of other channels": ("sdxl", VAE, {"latents_mean": [0.5]}, "latents_mean: expected 4 numbers"),
    "no list of channels": ("sdxl", VAE, {"block_out_channels": 8}, "block_out_channels: expected a list, got 8"),
    "a number in words": ("sdxl", VAE, {"scaling_factor": "0.13"}, "scaling_factor: expected a number, got '0.13'"),
    "channels in words": ("sdxl", VAE, {"latent_channels": "4"}, "latent_channels: expected a whole number, got '4'"),
    "an index of words": ("sdxl", "model_index.json", {"vae": "AutoencoderKL"}, r"vae: expected \[library, class\]"),
    "a stretched flow": ("sd3", SCHEDULER, {"shift_terminal": 0.1}, "shift_terminal: 0.1"),
    "a prediction of nobody's": ("sdxl", SCHEDULER, {"prediction_type": "noise"}, "prediction_type: unknown 'noise'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_honoured_is_refused_by_name_before_weights_load(edited: Edit, case: str) -> None:
    name, file, changes, told = REFUSED[case]
    folder = edited(name, file, **changes)
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ConfigError, match=told) as caught:
        _ = build_modality(folder, name).output_kind
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pipeline_of_another_family_names_its_own(tiny_pipeline: Build, name: str) -> None:
    for other in (one for one in FAMILIES if one != name):
        told = f"modality.family: {other}, but .* holds a {PIPELINES[name][0]}; its family is {name}"
        with pytest.raises(ConfigError, match=told):
            find_family(other)(str(tiny_pipeline(name)))
    with pytest.raises(ConfigError, match=f"its family is {name}"):
        find_family("class_unet")(str(tiny_pipeline(name)))


def test_a_class_unet_is_no_pipeline(tiny_class_unet: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds one UNet2DModel, not a pipeline .*; its family is class_unet"):
        find_family("stable_diffusion")(str(tiny_class_unet))


def test_an_earlier_name_of_a_class_and_its_switched_off_settings_are_read(edited: Edit) -> None:
    """As in the repositories of PixArt-alpha."""
    legacy = {"_class_name": "Transformer2DModel", "num_vector_embeds": None, "only_cross_attention": False}
    folder = edited("pixart", "transformer/config.json", **legacy)
    edited("pixart", "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    (folder / "transformer/config.json").write_text(
        json.dumps({**json.loads((folder / "transformer/config.json").read_text()), **legacy})
    )
    assert build_family(folder, "pixart").settings["patch_size"] == 2


def test_quantised_weights_are_refused(edited: Edit) -> None:
    from safetensors.torch import load_file, save_file

    folder = edited("stable_diffusion", "unet/config.json")
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file({name: value.to(torch.float8_e4m3fn) for name, value in load_file(path).items()}, path)
    with pytest.raises(ConfigError, match=r"holds quantised weights \(F8_E4M3\); name a folder with the plain ones"):
        build_family(folder, "stable_diffusion").load(device=CPU, dtype=torch.float32)


def test_a_variant_that_no_part_has_is_refused(tiny_pipeline: Build) -> None:
    with pytest.raises(ConfigError, match=r"variant: 'fp61', but no part of .* has such weights"):
        build_family(tiny_pipeline("stable_diffusion"), "stable_diffusion", variant="fp61").check_weights()


def test_levels_that_no_schedule_has_are_one_message(edited: Edit) -> None:
    folder = edited("stable_diffusion", "scheduler/scheduler_config.json", beta_start=3.0, beta_end=5.0)
    with pytest.raises(ConfigError, match="the scheduler's settings give no schedule: expected noise levels"):
        _ = build_family(folder, "stable_diffusion").schedule


def test_settings_that_are_no_object_are_named(edited: Edit) -> None:
    folder = edited("stable_diffusion", "vae/config.json")
    (folder / "vae/config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"vae/config.json: expected an object, got list"):
        build_family(folder, "stable_diffusion")


def test_settings_of_another_schedulers_sampling_are_kept() -> None:
    """As in the repository of SDXL, whose scheduler was PNDM once."""
    given = {"_class_name": "EulerDiscreteScheduler", "clip_sample": False, "skip_prk_steps": True}
    assert "skip_prk_steps" not in read_scheduler({**given, "set_alpha_to_one": False}, "here")


def test_a_network_with_all_defaults_is_honoured() -> None:
    for name in HONOURED:
        defaults = find_defaults(name) or {}
        assert read_network(defaults, name, "here") == {key: as_json(value) for key, value in defaults.items()}


# -- numbers that are none --------------------------------------------------------------------------------------------


def spoil(folder: Path, part: str, file: str, weight: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / part / file)
    (name,) = (name for name in weights if name.endswith(weight))
    weights[name] *= float("nan")
    save_file(weights, folder / part / file, metadata={"format": "pt"})


def test_an_autoencoder_that_overflows_is_named_with_its_image(edited: Edit, tmp_path: Path) -> None:
    from PIL import Image

    from mmalign import MediaLimits

    folder = edited("stable_diffusion", "vae/config.json")
    spoil(folder, "vae", "diffusion_pytorch_model.safetensors", "encoder.conv_out.weight")
    family = build_family(folder, "stable_diffusion", encoder_dtype="bfloat16")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    image = {"type": "image", "media": "a"}
    row = {
        "id": "flag",
        "schema": "mmalign/1",
        "prompt": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
        "responses": [{"rid": "r0", "messages": [{"role": "assistant", "content": [image]}]}],
        "media": [{"mid": "a", "type": "image", "uri": str(tmp_path / "a.png")}],
    }
    record = Record.from_dict(row)
    pixels = family.read(record, record.responses[0], MediaLimits())
    told = (
        f"the autoencoder {re.escape(str(folder))}/vae gives numbers that are not finite for the image of "
        "record 'flag', response 'r0'; it computes in torch.bfloat16: set modality.family.encoder_dtype: float32"
    )
    with pytest.raises(DataError, match=told):
        family.to_latents(pixels[None])
    spoil(folder, "vae", "diffusion_pytorch_model.safetensors", "decoder.conv_out.weight")
    with pytest.raises(DataError, match="not finite for the latents of a sampled image; its weights are damaged"):
        build_family(folder, "stable_diffusion").to_pixels(torch.zeros(1, 4, 8, 8))


def test_a_text_encoder_that_overflows_is_named(edited: Edit) -> None:
    folder = edited("stable_diffusion", "vae/config.json")
    spoil(folder, "text_encoder", "model.safetensors", "final_layer_norm.weight")
    family = build_family(folder, "stable_diffusion")
    with pytest.raises(
        DataError, match=r"the text encoder .*/text_encoder gives numbers that are not finite for a prompt"
    ):
        family.embed([family.tokenise_text("a")])


# -- zero terminal SNR ------------------------------------------------------------------------------------------------


def test_weights_of_noise_predictions_have_a_limit_at_zero_snr(edited: Edit) -> None:
    folder = edited("stable_diffusion", "scheduler/scheduler_config.json", rescale_betas_zero_snr=True)
    modality = build_modality(folder, "stable_diffusion", weight="min_snr")
    schedule = modality.network_family.schedule
    levels = torch.tensor([998, 999])
    assert schedule.snr(levels)[1] == 0
    found = step_weights(levels, schedule, "epsilon", weighting="min_snr", gamma=5.0)
    assert found.tolist() == [1, 1]
    with pytest.raises(ConfigError, match=r"modality.weight: 'elbo' .* not finite at timestep 999"):
        build_modality(folder, "stable_diffusion", weight="elbo")


def test_noise_predictions_are_not_sampled_from_pure_noise(edited: Edit) -> None:
    from mmalign_diffusion.decoding import DiffusionDecoding

    folder = edited("stable_diffusion", "scheduler/scheduler_config.json", rescale_betas_zero_snr=True)
    modality = build_modality(folder, "stable_diffusion")
    network = modality.load(device=CPU, dtype=torch.float32).network
    records = [Record.from_text("a cat", id="a")]
    with pytest.raises(ConfigError, match=r"decoding.spacing: timestep 999 is nothing but noise .*; take leading"):
        modality.generate(network, records, DiffusionDecoding(max_steps=2), 1)
    (generated,) = modality.generate(network, records, DiffusionDecoding(max_steps=2, spacing="leading"), 1)
    assert len(generated) == 1
