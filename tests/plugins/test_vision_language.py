"""Language models that see and hear: encoding, training, saving, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from multimodal_models import Family, build_tiny_multimodal_model, tiny_sound
from multimodal_records import media_record, media_row, write_colour_pairs, write_media
from PIL import Image

import mmalign
from mmalign import ConfigError, DataError, Decoding, LoRAParameters, MediaError, Policy, Record
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.tokens.decoders import find_text_part
from mmalign_vision_language.config import VisionLanguageConfig
from mmalign_vision_language.modality import VisionLanguageModality

CPU = torch.device("cpu")

Build = Callable[..., VisionLanguageModality]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    root = tmp_path_factory.mktemp("multimodal")
    return cache(lambda family: build_tiny_multimodal_model(root / family, family))


@pytest.fixture(scope="module")
def build(folders: Callable[[Family], Path]) -> Build:
    return lambda family="qwen2_vl", **choices: VisionLanguageModality(model=str(folders(family)), **choices)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_pairs(tmp_path_factory.mktemp("colours"), 24)


@pytest.fixture
def recipe(
    folders: Callable[[Family], Path], colours: Path, tmp_path: Path, write_config: Callable[..., Path]
) -> Callable[..., Path]:
    """Writes the configuration of a dpo run on colours; keywords replace whole sections."""

    def write(family: Family = "qwen2_vl", **sections: Any) -> Path:
        config = {
            "modality": {"name": "vision_language", "model": str(folders(family))},
            "data": {"train": {"path": str(colours)}, "eval": {"path": str(colours)}},
            "objective": {"name": "dpo"},
            "train": {"steps": 20, "batch_size": 8, "learning_rate": 3e-3},
            "evaluation": {"evaluators": [{"name": "preference"}]},
            "output": str(tmp_path / "run"),
        }
        return write_config({**config, **sections})

    return write


# -- encoding


def test_an_image_takes_as_many_tokens_as_the_processor_says(build: Build, tmp_path: Path) -> None:
    modality = build()
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


def test_the_processor_can_be_set(build: Build, tmp_path: Path) -> None:
    """Qwen's processors make an image smaller that has more pixels than they are told."""
    record = media_record(tmp_path, "image", [2], ["A cat."])
    [encoded] = build(processor={"max_pixels": 2 * 14 * 14}).encode(record)
    assert encoded.tensors["media.image_grid_thw"].tolist() == [[1, 2, 2]]
    assert build(processor={"max_pixels": 2 * 14 * 14}).fingerprint() != build().fingerprint()


def test_the_responses_of_a_record_share_its_image(build: Build, tmp_path: Path) -> None:
    one, other = build("llava").encode(media_record(tmp_path, "image", [1], ["A cat.", "No."]))
    assert one.tensors["media.pixel_values"] is other.tensors["media.pixel_values"]


def test_media_come_in_the_order_of_the_parts(build: Build, tmp_path: Path) -> None:
    """Not in that of the record's `media`."""
    row = media_row("a", [write_media(tmp_path, "image", seed) for seed in (1, 3)], ["A cat."], kind="image")
    row["prompt"][0]["content"][:2] = reversed(row["prompt"][0]["content"][:2])
    [turned] = build("llava").encode(Record.from_dict(row))
    [straight] = build("llava").encode(media_record(tmp_path, "image", [1, 3], ["A cat."]))
    assert torch.equal(turned.tensors["media.pixel_values"], straight.tensors["media.pixel_values"].flip(0))


def test_a_clip_of_a_sound_is_heard(build: Build, tmp_path: Path) -> None:
    """Eight tokens a second: 0.6 s, and its part from 0.1 to 0.4 s."""
    row = media_row("a", [write_media(tmp_path, "audio", 1)], ["A cat."], kind="audio")
    modality = build("qwen2_audio")
    [whole] = modality.encode(Record.from_dict(row))
    row["prompt"][0]["content"][0] |= {"start": 0.1, "end": 0.4}
    [clip] = modality.encode(Record.from_dict(row))
    assert whole.shared - clip.shared == 3
    features = modality.loaded_processor.feature_extractor
    heard = features(tiny_sound(1, 0.6)[1600:6400], sampling_rate=16000, padding="max_length", return_tensors="pt")
    torch.testing.assert_close(clip.tensors["media.input_features"], heard.input_features, rtol=0, atol=5e-3)


def test_a_prompt_of_words_alone_is_encoded_as_such(build: Build, tmp_path: Path) -> None:
    [encoded] = build("llava", max_prompt_tokens=5).encode(media_record(tmp_path, "image", [], ["A cat."]))
    assert not any(name.startswith("media.") for name in encoded.tensors)
    assert encoded.shared == 5 and encoded.truncated > 0


# -- training


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_dpo_learns_what_only_the_images_tell(recipe: Callable[..., Path], family: Family, tmp_path: Path) -> None:
    """All prompts have the same words, and each answer is as often the better as the worse one."""
    mmalign.train(recipe(family))
    before, after = (row for row in read_metrics(tmp_path / "run") if row["kind"] == "eval")
    assert before["preference/ranking_accuracy"] < 0.6
    assert after["preference/ranking_accuracy"] == after["preference/reward_accuracy"] == 1


def test_a_second_run_computes_no_reference(
    recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    settings = {"train": {"steps": 3, "batch_size": 8, "learning_rate": 1e-3}}
    runs = [mmalign.train(recipe(**settings, output=str(tmp_path / name))) for name in ("one", "two")]
    caches = [run.backend.reference_cache for run in runs]
    assert caches[0].computed == 48
    assert (caches[1].computed, caches[1].found) == (0, caches[0].found + 48)


@pytest.mark.parametrize("objective", ["grpo", "kto", "simpo", "orpo", "reward_model", "sft"])
def test_other_objectives_train(recipe: Callable[..., Path], objective: str) -> None:
    sections: dict[str, Any] = {"objective": {"name": objective}, "evaluation": {"evaluators": []}}
    if objective == "grpo":
        sections |= {
            "collector": {"name": "group", "group_size": 4},
            "rewards": [{"name": "length", "target": 3}],
            "advantage": {"name": "grpo"},
            "decoding": {"name": "sample", "max_steps": 4},
        }
    run = mmalign.train(recipe(**sections, train={"steps": 3, "batch_size": 6, "learning_rate": 1e-3}))
    assert run.step == 3


def test_an_adapter_is_put_into_the_language_model_alone(build: Build) -> None:
    for towers in (False, True):
        network = (
            build("llava", lora=LoRAParameters(rank=2), train_towers=towers)
            .load(device=CPU, dtype=torch.float32)
            .network
        )
        adapted = {name for name, value in network.named_parameters() if value.requires_grad}
        assert any("language_model" in name for name in adapted)
        assert any("vision_tower" in name for name in adapted) == towers


def test_towers_stay_as_they_are_unless_they_are_trained(build: Build) -> None:
    for towers in (False, True):
        network = build(train_towers=towers).load(device=CPU, dtype=torch.float32).network
        trained = {name for name, value in network.named_parameters() if value.requires_grad}
        assert "lm_head.weight" in trained and "model.language_model.norm.weight" in trained
        assert any("visual" in name for name in trained) == towers
    counted = build().parameter_counts()
    network = build().load(device=CPU, dtype=torch.float32).network
    sizes = [value.numel() for value in network.parameters() if value.requires_grad]
    assert counted[1] == sum(sizes) < counted[0]


def test_the_inside_of_the_network_is_that_of_the_language_model(build: Build, tmp_path: Path) -> None:
    """Not what the same layers of the tower compute, which has other places."""
    modality = build("llava")
    policy = Policy(modality, modality.load(device=CPU, dtype=torch.float32), ())
    responses = modality.encode(media_record(tmp_path, "image", [1], ["A cat.", "No."]))
    outputs = policy(responses, ("layers", "activations", "context"))
    assert outputs["layers"].shape == (2, max(one.steps for one in responses), 2, 32)
    assert outputs["activations"].shape[2] == 2 + 2 * 4  # two layers: themselves, three projections, one MLP each
    assert outputs["context"].shape == (2, responses[0].shared, 32)


def test_what_is_saved_loads_with_transformers(recipe: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    run = mmalign.train(recipe(train={"steps": 2, "batch_size": 4, "learning_rate": 1e-3}))
    network = AutoModelForMultimodalLM.from_pretrained(tmp_path / "run" / "model", dtype="float32")
    trained = run.policy.network.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.state_dict().items())
    assert AutoProcessor.from_pretrained(tmp_path / "run" / "model").image_processor.size["longest_edge"] == 16 * 14**2


# -- what is refused


def test_attention_that_looks_ahead_is_refused(build: Build, tmp_path: Path) -> None:
    modality = build("paligemma")
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
def test_what_cannot_be_read_names_its_record(build: Build, family: Family, tmp_path: Path) -> None:
    modality = build(family)
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


def test_a_response_that_holds_the_mark_of_an_image_is_refused(build: Build, tmp_path: Path) -> None:
    record = media_record(tmp_path, "image", [1], ["A cat <|image_pad|>."])
    with pytest.raises(
        DataError, match=r"response 'r0': it has '<\|image_pad\|>', which stands for an image or a sound"
    ):
        build().encode(record)


def test_marks_without_an_image_are_refused(build: Build, tmp_path: Path) -> None:
    record = media_record(tmp_path, "image", [1], ["A cat."], text="A second <image>?")
    with pytest.raises(DataError, match="the model's processor refuses the prompt"):
        build("llava").encode(record)


def test_a_prompt_with_an_image_is_not_cut(build: Build, tmp_path: Path) -> None:
    record = media_record(tmp_path, "image", [1], ["A cat."])
    with pytest.raises(DataError, match=r"20 tokens with its media, more than modality\.max_prompt_tokens, 12"):
        build("llava", max_prompt_tokens=12).encode(record)


def test_a_prompt_with_an_image_is_not_trained_on(build: Build, tmp_path: Path) -> None:
    row = media_row("a", [write_media(tmp_path, "image", 1)], ["A cat."], kind="image")
    row["prompt"][0]["train"] = 1.0
    with pytest.raises(DataError, match="a prompt with media cannot be trained on"):
        build().encode(Record.from_dict(row))


def test_other_models_are_refused(tiny_text_model: Path, tmp_path: Path, build: Build) -> None:
    with pytest.raises(ConfigError, match=r"modality\.model: .* reads text alone; use modality\.name: text"):
        VisionLanguageModality(model=str(tiny_text_model)).encode(media_record(tmp_path, "image", [1], ["A cat."]))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ConfigError, match=r"a \.gguf file holds no processor; give a folder or a hub id"):
        VisionLanguageModality(model=str(tmp_path / "model.gguf"))
    with pytest.raises(ConfigError, match="cannot load a multimodal language model"):
        modality = build("llava")
        modality.source = VisionLanguageModality(model=str(tiny_text_model)).source
        modality.load(device=CPU, dtype=torch.float32)


def test_the_config_model_and_the_modality_have_the_same_fields_and_defaults() -> None:
    declared = {field.name: field.default for field in fields(VisionLanguageModality) if field.init}
    keys = VisionLanguageConfig.model_fields
    assert declared.keys() == keys.keys()
    assert all(declared[name] == keys[name].default for name in keys.keys() - {"model", "processor"})


def test_listing_the_modality_imports_no_torch() -> None:
    program = (
        "import sys, mmalign_vision_language, mmalign_vision_language.config\n"
        "mmalign_vision_language.register_modalities()\n"
        "assert not {'torch', 'transformers', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_adapters_part_is_the_networks_decoder(build: Build) -> None:
    network = build().load(device=CPU, dtype=torch.float32).network
    assert type(find_text_part(network)).__name__ == "Qwen2VLTextModel"
