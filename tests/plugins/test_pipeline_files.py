"""The files of a pipeline: which are found, fetched and refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from pipeline_cases import CPU, build_family

from mmalign import ConfigError
from mmalign_diffusion.families import find_family
from mmalign_diffusion.families.pipeline import VARIANTS, fetched_files

Build = Callable[..., Path]


def test_variants_are_found_and_asked_for(tiny_pipeline: Build, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_pipeline("stable_diffusion"), tmp_path / "model")
    halved = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float16)
    halved.save_pretrained(folder / "unet", variant="fp16")
    plain, variant = (build_family(folder, "stable_diffusion", variant=one) for one in (None, "fp16"))
    assert plain._denoiser.stored_dtype == torch.float32 and variant._denoiser.stored_dtype == torch.float16
    assert variant.autoencoder.dtype == torch.float32, "of the other parts there are only plain weights"
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    alone = build_family(folder, "stable_diffusion").load(device=CPU, dtype=torch.float32)
    assert next(alone.parameters()).dtype == torch.float32


REPOSITORY = """model_index.json v1-5-pruned.safetensors v1-5-pruned.ckpt scheduler/scheduler_config.json
safety_checker/model.safetensors tokenizer/vocab.json tokenizer/merges.txt text_encoder/model.fp16.safetensors
text_encoder/model.safetensors unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.bin
unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.safetensors
vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.fp16.safetensors"""
"""Some files of Stable Diffusion 1.5 on the hub."""


@pytest.mark.parametrize(("variant", "weights"), [(None, "safetensors"), ("fp16", "fp16.safetensors")])
def test_only_the_wanted_weights_are_fetched(variant: str | None, weights: str) -> None:
    files, skipped = fetched_files("unet", variant), [] if variant else VARIANTS
    fetched = set(filter_repo_objects(REPOSITORY.split(), allow_patterns=files, ignore_patterns=list(skipped)))
    parts = {"unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"}
    assert {name for name in fetched if "safetensors" in name} == {f"{part}.{weights}" for part in parts}
    rest = {"model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"}
    assert {name for name in fetched if "safetensors" not in name} == rest


# -- what is refused


def test_what_cannot_be_loaded_is_told_by_name(tiny_pipeline: Build, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_pipeline("stable_diffusion"), tmp_path / "model")
    with pytest.raises(ConfigError, match=r"cannot find a model .*nowhere"):
        build_family(tmp_path / "nowhere", "stable_diffusion")
    with pytest.raises(ConfigError, match=r"modality.size: expected a multiple of 2, got 15"):
        find_family("stable_diffusion")(str(folder), (15, 16))
    with pytest.raises(ConfigError, match=r"bucket_step: expected a multiple of 4, got 6"):
        build_family(tiny_pipeline("flux"), "flux", buckets=True, bucket_step=6)
    with pytest.raises(ConfigError, match="bucket_step: larger than the images"):
        build_family(folder, "stable_diffusion", buckets=True)
    with pytest.raises(
        ConfigError,
        match=r"modality.family: sdxl, but .* holds a StableDiffusionPipeline; its family is stable_diffusion",
    ):
        build_family(folder, "sdxl")
    with pytest.raises(ConfigError, match=r"modality.family.denoiser: cannot find"):
        build_family(folder, "stable_diffusion", denoiser=str(tmp_path / "nowhere"))
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"unet holds no weights as safetensors; variants that are there: none"):
        build_family(folder, "stable_diffusion").load(device=CPU, dtype=torch.float32)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"cannot load .*vae"):
        build_family(folder, "stable_diffusion").to_latents(torch.zeros(1, 3, 16, 16))
