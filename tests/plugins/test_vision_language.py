"""Language models that see and hear: encoding, and configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from multimodal_models import build_tiny_multimodal_model
from multimodal_records import media_record, media_row, write_media
from PIL import Image
from tiny_media import tiny_sound

from mmalign import Record
from mmalign.toolkits.tokens.decoders import find_text_part
from mmalign_vision_language.config import VisionLanguageConfig
from mmalign_vision_language.modality import VisionLanguageModality

CPU = torch.device("cpu")

Seeing = Callable[..., VisionLanguageModality]


def test_an_image_takes_as_many_tokens_as_the_processor_says(seeing: Seeing, tmp_path: Path) -> None:
    modality = seeing()
    [encoded] = modality.encode(media_record(tmp_path, "image", [2], ["A cat."]))  # 42 x 28 pixels, 14 x 14 a token
    assert modality.render(encoded) == [
        (
            "<|im_start|>user\n<|vision_start|><|image_pad|> x 6<|vision_end|>What is this?<|im_end|>\n"
            "<|im_start|>assistant\n",
            False,
        ),
        ("A cat.<|im_end|>", True),
    ]
    assert encoded.shared == len(encoded.tensors["prompt_ids"])
    assert encoded.size == encoded.shared + encoded.steps


@pytest.mark.parametrize("seeds", [[1], []])
@pytest.mark.parametrize("written", [True, False])
def test_a_prompt_begins_as_transformers_begins_it(tmp_path: Path, written: bool, seeds: list[int]) -> None:
    """With one beginning-of-sequence token, whether the template writes it or the tokenizer adds it."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoProcessor

    folder = build_tiny_multimodal_model(tmp_path / "model", "llava")
    processor = AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|pad|> $A", special_tokens=[("<|pad|>", 373)]
    )
    tokenizer.bos_token = "<|pad|>"
    processor.chat_template = "<|pad|>" * written + processor.chat_template
    processor.save_pretrained(folder)
    tensors, _ = VisionLanguageModality(model=str(folder)).encode_prompt(media_record(tmp_path, "image", seeds, []))
    chat = [{"role": "user", "content": [*[{"type": "image"}] * len(seeds), {"type": "text", "text": "What is this?"}]}]
    if seeds:
        chat[0]["content"][0]["image"] = Image.open(write_media(tmp_path, "image", 1))
    theirs = AutoProcessor.from_pretrained(folder).apply_chat_template(
        chat, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    assert tensors["prompt_ids"].tolist() == theirs["input_ids"][0].tolist()
    assert tensors["prompt_ids"].tolist().count(373) == 1


def test_the_processor_can_be_set(seeing: Seeing, tmp_path: Path) -> None:
    """Qwen's processors make an image smaller that has more pixels than they are told."""
    record = media_record(tmp_path, "image", [2], ["A cat."])
    [encoded] = seeing(processor={"max_pixels": 2 * 14 * 14}).encode(record)
    assert encoded.tensors["media.image_grid_thw"].tolist() == [[1, 2, 2]]
    assert seeing(processor={"max_pixels": 2 * 14 * 14}).fingerprint() != seeing().fingerprint()


def test_the_responses_of_a_record_share_its_image(seeing: Seeing, tmp_path: Path) -> None:
    one, other = seeing("llava").encode(media_record(tmp_path, "image", [1], ["A cat.", "No."]))
    assert one.tensors["media.pixel_values"] is other.tensors["media.pixel_values"]


def test_media_come_in_the_order_of_the_parts(seeing: Seeing, tmp_path: Path) -> None:
    """Not in that of the record's `media`."""
    row = media_row("a", [write_media(tmp_path, "image", seed) for seed in (1, 3)], ["A cat."], kind="image")
    row["prompt"][0]["content"][:2] = reversed(row["prompt"][0]["content"][:2])
    [turned] = seeing("llava").encode(Record.from_dict(row))
    [straight] = seeing("llava").encode(media_record(tmp_path, "image", [1, 3], ["A cat."]))
    assert torch.equal(turned.tensors["media.pixel_values"], straight.tensors["media.pixel_values"].flip(0))


def test_a_clip_of_a_sound_is_heard(seeing: Seeing, tmp_path: Path) -> None:
    """Eight tokens a second: 0.6 s, and its part from 0.1 to 0.4 s."""
    row = media_row("a", [write_media(tmp_path, "audio", 1)], ["A cat."], kind="audio")
    modality = seeing("qwen2_audio")
    [whole] = modality.encode(Record.from_dict(row))
    row["prompt"][0]["content"][0] |= {"start": 0.1, "end": 0.4}
    [clip] = modality.encode(Record.from_dict(row))
    assert whole.shared - clip.shared == 3
    features = modality.loaded_processor.feature_extractor
    heard = features(tiny_sound(1, 0.6)[1600:6400], sampling_rate=16000, padding="max_length", return_tensors="pt")
    torch.testing.assert_close(clip.tensors["media.input_features"], heard.input_features, rtol=0, atol=5e-3)


def test_a_prompt_of_words_alone_is_encoded_as_such(seeing: Seeing, tmp_path: Path) -> None:
    [encoded] = seeing("llava", max_prompt_tokens=5).encode(media_record(tmp_path, "image", [], ["A cat."]))
    assert not any(name.startswith("media.") for name in encoded.tensors)
    assert encoded.shared == 5 and encoded.truncated > 0


def test_the_config_model_and_the_modality_have_the_same_fields_and_defaults() -> None:
    declared = {field.name: field.default for field in fields(VisionLanguageModality) if field.init}
    keys = VisionLanguageConfig.model_fields
    assert declared.keys() == keys.keys()
    assert all(
        declared[name] == keys[name].default for name in keys.keys() - {"model", "processor", "chat_template_kwargs"}
    )


def test_listing_the_modality_imports_no_torch() -> None:
    program = (
        "import sys, mmalign_vision_language, mmalign_vision_language.config\n"
        "mmalign_vision_language.register_modalities()\n"
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_adapters_part_is_the_networks_decoder(seeing: Seeing) -> None:
    network = seeing().load(device=CPU, dtype=torch.float32).network
    assert type(find_text_part(network)).__name__ == "Qwen2VLTextModel"
