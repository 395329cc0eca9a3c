"""The family `class_unet`: how classes and images are read, and what a folder must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from image_records import image_record, write_image
from PIL import Image

from mmalign import ConfigError, DataError, MediaLimits, Record
from mmalign_diffusion.families.class_unet import ClassUNet
from mmalign_diffusion.testing import build_tiny_class_unet


def prompt(text: str, **fields: Any) -> Record:
    return Record.from_text(text, id="a").model_copy(update=fields)


@pytest.mark.parametrize(
    ("own", "text", "expected"),
    [
        ({}, "2", 2),
        ({}, "A handwritten 3, please", 3),
        ({"classes": ("cat", "dog")}, "A Dog.", 1),
        ({"classes": ("cat", "dog")}, "cat and a cat", 0),
    ],
)
def test_the_class_is_the_one_that_the_prompt_names(
    tiny_class_unet: Path, own: dict[str, Any], text: str, expected: int
) -> None:
    family = ClassUNet(str(tiny_class_unet), **own)
    assert family.tokenise(prompt(text))["class"].item() == expected


@pytest.mark.parametrize(
    ("own", "text"), [({}, "none"), ({}, "1 or 2"), ({}, "4"), ({"classes": ("cat", "dog")}, "cat or dog"), ({}, " ")]
)
def test_a_prompt_of_none_or_several_classes_is_refused(tiny_class_unet: Path, own: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match="record 'a'"):
        ClassUNet(str(tiny_class_unet), **own).tokenise(prompt(text))


def test_the_class_may_stand_in_the_metadata(tiny_class_unet: Path) -> None:
    family = ClassUNet(str(tiny_class_unet), class_key="digit")
    assert family.tokenise(prompt("any", meta=json.dumps({"digit": 2})))["class"].item() == 2
    with pytest.raises(DataError, match="record 'a': meta has no 'digit'; did you mean 'digits'"):
        family.tokenise(prompt("any", meta=json.dumps({"digits": 2})))


def test_images_are_scaled_to_cover_and_cut_evenly(tiny_class_unet: Path, tmp_path: Path) -> None:
    """16 x 8 pixels, left half black: the middle 8 x 8 has the edge in its middle."""
    wide = Image.new("L", (16, 8))
    wide.paste(255, (8, 0, 16, 8))
    wide.save(tmp_path / "wide.png")
    record = Record.from_dict(image_record("a", "1", {"r0": tmp_path / "wide.png"}))
    media = record.media[0].model_copy(update={"uri": str(tmp_path / "wide.png")})
    record = record.model_copy(update={"media": (media,)})
    pixels = ClassUNet(str(tiny_class_unet)).read(record, record.responses[0], MediaLimits())
    assert pixels.shape == (1, 8, 8) and pixels.dtype == torch.float32
    assert (pixels[:, :, :4] == -1).all() and (pixels[:, :, 4:] == 1).all()


def test_colours_follow_the_network(tmp_path: Path) -> None:
    family = ClassUNet(str(build_tiny_class_unet(tmp_path / "unet", channels=3)), (4, 8))
    record = Record.from_dict(image_record("a", "1", {"r0": write_image(tmp_path / "a.png", 0.5, 0)}))
    media = record.media[0].model_copy(update={"uri": str(tmp_path / "a.png")})
    record = record.model_copy(update={"media": (media,)})
    pixels = family.read(record, record.responses[0], MediaLimits())
    assert pixels.shape == family.latent_shape() == (3, 4, 8) and torch.equal(pixels[0], pixels[1])
    _, image = family.write(pixels)
    assert image.mode == "RGB" and image.size == (8, 4)


def test_pixels_survive_being_written_and_read(tiny_class_unet: Path, tmp_path: Path) -> None:
    family = ClassUNet(str(tiny_class_unet))
    pixels = torch.randint(0, 256, (1, 8, 8)).float() / 127.5 - 1
    _, image = family.write(pixels)
    image.save(tmp_path / "a.png")
    row = image_record("a", "1", {"r0": tmp_path / "a.png"})
    row["media"][0]["uri"] = str(tmp_path / "a.png")
    record = Record.from_dict(row)
    assert torch.allclose(family.read(record, record.responses[0], MediaLimits()), pixels)


@pytest.mark.parametrize(("prediction", "steps"), [("epsilon", 1000), ("v_prediction", 1000), ("flow", 1000)])
def test_schedule_and_prediction_are_those_of_the_folder(tmp_path: Path, prediction: Any, steps: int) -> None:
    family = ClassUNet(str(build_tiny_class_unet(tmp_path, prediction=prediction)))
    assert family.prediction == prediction and family.schedule.steps == steps


def test_folders_that_are_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"modality.model: missing; expected a folder or a hub id"):
        ClassUNet(None)
    with pytest.raises(ConfigError, match=r"modality.model: cannot find a model './nowhere'"):
        ClassUNet("./nowhere")
    with pytest.raises(ConfigError, match="no installed package 'mmalign_nothing' with a folder 'unet'"):
        ClassUNet("package:mmalign_nothing/unet")
    with pytest.raises(ConfigError, match=r"holds none of config.json, unet/config.json"):
        ClassUNet(str(tmp_path))
    build_tiny_class_unet(tmp_path)
    with pytest.raises(ConfigError, match=r"null_class: 4, but the model has 4 classes"):
        ClassUNet(str(tmp_path), null_class=4)
    with pytest.raises(ConfigError, match=r"classes: 5 names, but the model has 4"):
        ClassUNet(str(tmp_path), classes=("a", "b", "c", "d", "e"))
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"modality.model: cannot load"):
        ClassUNet(str(tmp_path)).load(device=torch.device("cpu"), dtype=torch.float32)


def test_a_folder_of_a_pipeline_is_read_too(tmp_path: Path) -> None:
    folder = build_tiny_class_unet(tmp_path / "unet")
    (tmp_path / "scheduler").mkdir()
    (folder / "scheduler_config.json").rename(tmp_path / "scheduler" / "scheduler_config.json")
    family = ClassUNet(str(tmp_path))
    network = family.load(device=torch.device("cpu"), dtype=torch.float32)
    skeleton = family.build_skeleton()
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in skeleton.parameters())
