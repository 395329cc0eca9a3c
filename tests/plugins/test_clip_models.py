"""CLIP models in folders of random weights: what is loaded, what they embed, what is refused."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from image_models import random_images, save_open_clip, save_transformers_clip

from mmalign import ConfigError
from mmalign_rewards.clip_models import ClipConfig, compute_cosines, compute_features, load_clip

TEXTS = ("a red cat", "a dog", "photo", "a red cat")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("clip")
    return {"open_clip": save_open_clip(root / "open"), "transformers": save_transformers_clip(root / "transformers")}


def load(folder: Path, **options: Any) -> Any:
    return load_clip(ClipConfig(model=str(folder), device="cpu", **options), "rewards.clip_score.encoder")


def longhand(library: str, folder: Path, image: Any, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The features of one image and one text by the library's own interface."""
    with torch.no_grad():
        if library == "open_clip":
            import open_clip

            network, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
            tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([text])
            return network.encode_image(transform(image)[None])[0], network.encode_text(tokens)[0]
        from transformers import CLIPModel, CLIPProcessor

        network, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
        output = network(**processor(text=[text], images=[image], return_tensors="pt"))
    # `forward` normalises, so the lengths are compared by their directions only.
    return output.image_embeds[0], output.text_embeds[0]


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_features_are_those_of_the_library(library: str, models: dict[str, Path]) -> None:
    clip, images = load(models[library]), random_images(3)
    of_images = compute_features(clip.embed_images, images, batch_size=2)
    of_texts = compute_features(clip.embed_texts, TEXTS[:3], batch_size=2)
    assert of_images.shape == of_texts.shape == (3, clip.width)
    for image, text, image_features, text_features in zip(images, TEXTS, of_images, of_texts, strict=False):
        expected = longhand(library, models[library], image, text)
        for got, wanted in zip((image_features, text_features), expected, strict=True):
            assert torch.cosine_similarity(got, wanted, dim=0).item() == pytest.approx(1.0, abs=1e-4)
    spread = torch.nn.functional.normalize(of_images, dim=1)
    assert (spread[0] @ spread[1]).item() < 0.999


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_the_logit_scale_is_the_models_own(library: str, models: dict[str, Path]) -> None:
    assert load(models[library]).logit_scale == pytest.approx(exp(1.5), rel=1e-5)


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_batches_and_order_change_nothing(library: str, models: dict[str, Path]) -> None:
    clip, images = load(models[library]), random_images(4)
    alone = torch.cat([compute_cosines(clip, [image], [text], 1) for image, text in zip(images, TEXTS, strict=True)])
    for size in (1, 3, 8):
        assert torch.allclose(compute_cosines(clip, images, TEXTS, size), alone, atol=1e-5)
    assert torch.allclose(compute_cosines(clip, images[::-1], TEXTS[::-1], 8).flip(0), alone, atol=1e-5)


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_half_precision_stays_near(library: str, models: dict[str, Path]) -> None:
    images = random_images(3)
    whole = compute_cosines(load(models[library]), images, TEXTS[:3], 8)
    half = compute_cosines(load(models[library], precision="bf16"), images, TEXTS[:3], 8)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max().item() < 0.03


@pytest.mark.parametrize("library", ["open_clip", "transformers"])
def test_a_long_text_is_cut_to_the_context(library: str, models: dict[str, Path]) -> None:
    clip = load(models[library])
    features = compute_features(clip.embed_texts, ["a red cat " * 30, "a red cat " * 40], 2)
    assert torch.allclose(features[0], features[1], atol=1e-5)


def test_rewards_that_name_a_model_alike_share_it(models: dict[str, Path]) -> None:
    first = load(models["transformers"])
    assert load(models["transformers"]) is first
    assert load(models["transformers"], precision="bf16") is not first


def test_loading_draws_nothing_from_the_generator_of_training_and_leaves_logging_alone(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for library in models:
        load(models[library], precision="fp16")
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.getLogger().handlers == []


def test_an_architecture_takes_its_weights_from_a_file(tmp_path: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    folder = save_open_clip(tmp_path / "model", seed=5)
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-for-tests.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    weights = str(folder / "open_clip_model.safetensors")
    named = load_clip(
        ClipConfig(model="tiny-for-tests", pretrained=weights, device="cpu"), "rewards.clip_score.encoder"
    )
    images = random_images(2)
    expected = compute_cosines(load(folder), images, TEXTS[:2], 2)
    assert torch.allclose(compute_cosines(named, images, TEXTS[:2], 2), expected, atol=1e-6)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"clip\.model: cannot load 'tiny-for-tests' with '.*other\.safetensors': "):
        load_clip(ClipConfig(model="tiny-for-tests", pretrained=str(tmp_path / "other.safetensors")), "clip")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"model": "ViT-B-23"},
            r"clip\.model: 'ViT-B-23' is no folder and no open_clip architecture; did you mean 'ViT-B-32'",
        ),
        ({"model": "ViT-B-32"}, r"clip\.pretrained: missing; a tag \(openai, "),
        ({"model": "ViT-B-32", "pretrained": "opnai"}, r"clip\.pretrained: 'opnai' is no tag .* did you mean 'openai'"),
        ({"model": "ViT-B-32", "pretrained": "w.safetensors"}, r"clip\.pretrained: there is no file 'w\.safetensors'"),
        (
            {"model": "ViT-B-32", "pretrained": "w.pt"},
            r"clip\.pretrained: 'w\.pt' is no tag of 'ViT-B-32' and no \.safe",
        ),
        ({"model": "hf-hub:org/name", "pretrained": "openai"}, r"clip\.pretrained: only for an architecture"),
        ({"model": "org/name", "pretrained": "openai"}, r"clip\.pretrained: only for an open_clip architecture"),
    ],
)
def test_a_wrong_name_is_a_configuration_error(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_clip(ClipConfig(**given), "clip")


@pytest.mark.parametrize("model", ["some-organisation/some-clip", "hf-hub:some-organisation/some-clip"])
def test_without_a_network_the_model_is_named(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=rf"clip\.model: cannot load '{model}'"):
        load_clip(ClipConfig(model=model), "clip")


def test_a_tag_without_a_network_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"clip\.model: cannot load 'ViT-B-32' with 'laion2b_e16': Failed to download"
    ):
        load_clip(ClipConfig(model="ViT-B-32", pretrained="laion2b_e16"), "clip")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no CLIP; expected open_clip_config\.json or config\.json in it"):
        load_clip(ClipConfig(model=str(tmp_path)), "clip")


def test_a_broken_folder_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    for library, name, content in (
        ("open_clip", "open_clip_config.json", "{}"),
        ("open_clip", "open_clip_model.safetensors", "short"),
        ("transformers", "preprocessor_config.json", "no json"),
        ("transformers", "model.safetensors", "short"),
    ):
        folder = tmp_path / f"{library}-{name}"
        shutil.copytree(models[library], folder)
        (folder / name).write_text(content)
        with pytest.raises(ConfigError, match=r"clip\.model: "):
            load_clip(ClipConfig(model=str(folder)), "clip")


def test_a_model_with_missing_weights_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "deeper"
    shutil.copytree(models["transformers"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"is not a whole CLIP: 16 weights missing, e\.g\. vision_model"):
        load_clip(ClipConfig(model=str(folder)), "clip")


def test_an_unknown_device_is_named(models: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"clip\.device: no device 'cuda:99' here"):
        load_clip(ClipConfig(model=str(models["open_clip"]), device="cuda:99"), "clip")


def test_a_missing_open_clip_is_named_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ConfigError, match=r"open_clip cannot be imported .*; pip install \"mmalign\[rewards\]\""):
        load_clip(ClipConfig(model="ViT-B-32", pretrained="openai"), "clip")
