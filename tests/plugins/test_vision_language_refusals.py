"""Language models that see and hear: what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from multimodal_models import Family
from multimodal_records import media_record, media_row, write_media

from mmalign import ConfigError, DataError, Decoding, MediaError, Record
from mmalign_vision_language.modality import VisionLanguageModality

CPU = torch.device("cpu")

Seeing = Callable[..., VisionLanguageModality]


def test_attention_that_looks_ahead_is_refused(seeing: Seeing, tmp_path: Path) -> None:
    modality = seeing("paligemma")
    network = modality.load(device=CPU, dtype=torch.float32).network
    responses = modality.encode(media_record(tmp_path, "image", [1], ["A cat."]))
    for packing in ("auto", "off"):
        modality.packing = packing
        with pytest.raises(
            ConfigError, match="PaliGemmaForConditionalGeneration lets tokens of a response see those after"
        ):
            modality.step_log_probs(network, responses)
        with pytest.raises(ConfigError, match="its steps have no log-probs"):
            modality.generate(network, [media_record(tmp_path, "image", [1], [])], Decoding(max_steps=2), 1)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_what_cannot_be_read_names_its_record(seeing: Seeing, family: Family, tmp_path: Path) -> None:
    modality = seeing(family)
    row = media_row("a7", [tmp_path / "none.png"], ["A cat."], kind="image")
    with pytest.raises(MediaError, match=r"record 'a7': .*none\.png: no such file"):
        modality.encode(Record.from_dict(row))
    sound = media_row("a8", [write_media(tmp_path, "audio", 1)], ["A cat."], kind="audio")
    with pytest.raises(DataError, match="record 'a8': it has an audio part, but this model hears nothing"):
        modality.encode(Record.from_dict(sound))
    video = media_row("a9", [tmp_path / "film.mp4"], ["A cat."], kind="video")
    with pytest.raises(
        DataError,
        match="record 'a9': a part of this user message is of type video; audio and image and text is read here",
    ):
        modality.encode(Record.from_dict(video))


def test_a_response_that_holds_the_mark_of_an_image_is_refused(seeing: Seeing, tmp_path: Path) -> None:
    record = media_record(tmp_path, "image", [1], ["A cat <|image_pad|>."])
    with pytest.raises(
        DataError, match=r"response 'r0': it has '<\|image_pad\|>', which stands for an image or a sound"
    ):
        seeing().encode(record)


def test_marks_without_an_image_are_refused(seeing: Seeing, tmp_path: Path) -> None:
    record = media_record(tmp_path, "image", [1], ["A cat."], text="A second <image>?")
    with pytest.raises(
        DataError, match="it has '<image>', which stands for an image or a sound, in a text of the user"
    ):
        seeing("llava").encode(record)


def test_a_prompt_with_an_image_is_not_cut(seeing: Seeing, tmp_path: Path) -> None:
    record = media_record(tmp_path, "image", [1], ["A cat."])
    with pytest.raises(DataError, match=r"20 tokens with its media, more than modality\.max_prompt_tokens, 12"):
        seeing("llava", max_prompt_tokens=12).encode(record)


def test_a_prompt_with_an_image_is_not_trained_on(seeing: Seeing, tmp_path: Path) -> None:
    row = media_row("a", [write_media(tmp_path, "image", 1)], ["A cat."], kind="image")
    row["prompt"][0]["train"] = 1.0
    with pytest.raises(DataError, match="a prompt with media cannot be trained on"):
        seeing().encode(Record.from_dict(row))


def test_other_models_are_refused(tiny_text_model: Path, tmp_path: Path, seeing: Seeing) -> None:
    with pytest.raises(ConfigError, match=r"modality\.model: .* reads text alone; use modality\.name: text"):
        VisionLanguageModality(model=str(tiny_text_model)).encode(media_record(tmp_path, "image", [1], ["A cat."]))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"a \.gguf file holds no processor; give a folder or a hub id"):
        VisionLanguageModality(model=str(tmp_path / "model.gguf"))
    with pytest.raises(ConfigError, match="cannot load a multimodal language model"):
        modality = seeing("llava")
        modality.source = VisionLanguageModality(model=str(tiny_text_model)).source
        modality.load(device=CPU, dtype=torch.float32)
