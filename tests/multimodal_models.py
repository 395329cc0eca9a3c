"""Tiny random multimodal language models with their processors in folders, made in code, with inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import transformers
from image_models import random_images
from numpy.typing import NDArray
from PIL import Image

from mmalign.testing import _build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

    Built = tuple[ProcessorMixin, PreTrainedModel]

Family = Literal["llava", "qwen2_vl", "idefics3", "paligemma", "qwen2_audio"]

SIDE = 28
"""Of the square images that all vision towers but that of qwen2_vl see, in pixels."""

SOUND_RATE = 16000
"""Of the sounds that qwen2_audio hears, in samples per second."""

MEDIA = {
    "llava": "<image>",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "idefics3": "<image>",
    "paligemma": "<image>",
    "qwen2_audio": "<|audio_bos|><|AUDIO|><|audio_eos|>",
}
"""What a chat template writes for an image or a sound, by family."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] if part['type'] == 'text' else 'MEDIA' }}{% endfor %}"
    "{% endif %}"
    "{{ '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML, without a default system message; content is a text or a list of parts."""

_EXTRA_TOKENS = {
    "llava": ["<image>"],
    "qwen2_vl": ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"],
    "idefics3": ["<image>", "<fake_token_around_image>", "<global-img>"],
    "paligemma": ["<image>"],
    "qwen2_audio": ["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"],
}
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
# Weights larger than usual, so that what a model sees or hears makes a difference to its next-token distributions.
_INIT = {"initializer_range": 0.1}


def build_tiny_multimodal_model(folder: Path, family: Family, *, seed: int = 0) -> Path:
    """Writes a random model and its processor, as `AutoModelForMultimodalLM` and `AutoProcessor` load them.

    The state of torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        processor, model = FAMILIES[family](_tokenizer(family))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tiny_image(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """An RGB image of coarse random blocks, of this width and height."""
    return random_images(1, seed, size)[0]


def tiny_sound(seed: int, seconds: float) -> NDArray[np.float32]:
    """A waveform of three random tones, of which the feature extractor keeps the first second."""
    generator = np.random.default_rng(seed)
    pitches = generator.uniform(100, 4000, (3, 1))
    times = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return np.sin(2 * np.pi * pitches * times).mean(axis=0).astype(np.float32)


def _tokenizer(family: Family) -> PreTrainedTokenizerFast:
    tokenizer = _build_tokenizer(384)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>", "extra_special_tokens": _EXTRA_TOKENS[family]})
    tokenizer.chat_template = CHAT_TEMPLATE.replace("MEDIA", MEDIA[family])
    return tokenizer


def _decoder(model_type: str, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> dict[str, Any]:
    """The configuration of a text model of two layers; only after the processor has added its tokens."""
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 512}
    return {"model_type": model_type, **_TOWER, **_INIT, **ends, **sizes, **settings}


def _llava(tokenizer: PreTrainedTokenizerFast) -> Built:
    """4 tokens per image, whatever its size."""
    images = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    # The tower's own class token is one more than the patches, and is not among the tokens of an image.
    features = {"patch_size": 14, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    processor = transformers.LlavaProcessor(images, tokenizer, chat_template=tokenizer.chat_template, **features)
    config = transformers.LlavaConfig(
        text_config=_decoder("llama", tokenizer),
        vision_config={"model_type": "clip_vision_model", **_TOWER, **_INIT, "image_size": SIDE, "patch_size": 14},
        image_token_index=processor.image_token_id,
        image_seq_length=4,
    )
    return processor, transformers.LlavaForConditionalGeneration(config)


def _qwen2_vl(tokenizer: PreTrainedTokenizerFast) -> Built:
    """A token per 14 x 14 pixels, from 1 to 16 per image."""
    patches = {"patch_size": 7, "temporal_patch_size": 2}
    sizes = {**patches, "merge_size": 2, "min_pixels": 14 * 14, "max_pixels": 16 * 14 * 14}
    images, videos = transformers.Qwen2VLImageProcessor(**sizes), transformers.Qwen2VLVideoProcessor(**sizes)
    processor = transformers.Qwen2VLProcessor(images, tokenizer, videos, chat_template=tokenizer.chat_template)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    tower = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "spatial_merge_size": 2}
    start, end = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    config = transformers.Qwen2VLConfig(
        text_config=_decoder("qwen2_vl_text", tokenizer, rope_parameters=rope),
        vision_config={**tower, **patches, **_INIT},
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )
    return processor, transformers.Qwen2VLForConditionalGeneration(config)


def _idefics3(tokenizer: PreTrainedTokenizerFast) -> Built:
    """4 tokens per image, whatever its size, between three marks; images are not split."""
    edge = {"longest_edge": SIDE}
    images = transformers.Idefics3ImageProcessor(size=edge, max_image_size=edge, do_image_splitting=False)
    template = tokenizer.chat_template
    processor = transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template)
    config = transformers.Idefics3Config(
        text_config=_decoder("llama", tokenizer),
        vision_config={**_TOWER, **_INIT, "image_size": SIDE, "patch_size": 7},
        image_token_id=processor.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=2,
    )
    return processor, transformers.Idefics3ForConditionalGeneration(config)


def _paligemma(tokenizer: PreTrainedTokenizerFast) -> Built:
    """4 tokens per image, whatever its size; every token of a prompt sees all of it."""
    images = transformers.SiglipImageProcessor(size={"height": SIDE, "width": SIDE}, image_seq_length=4)
    processor = transformers.PaliGemmaProcessor(images, tokenizer, chat_template=tokenizer.chat_template)
    vision = {"model_type": "siglip_vision_model", **_TOWER, "image_size": SIDE, "patch_size": 14}
    config = transformers.PaliGemmaConfig(
        text_config=_decoder("gemma", tokenizer, head_dim=8),
        vision_config={**vision, "vision_use_head": False},
        image_token_index=processor.image_token_id,
        vocab_size=len(tokenizer),
        projection_dim=32,
        hidden_size=32,
    )
    return processor, transformers.PaliGemmaForConditionalGeneration(config)


def _qwen2_audio(tokenizer: PreTrainedTokenizerFast) -> Built:
    """8 tokens per second of a sound, of which it hears the first."""
    # A frame of features is 500 samples; the encoder halves their number and the pooling after it does so again.
    frames = {"sampling_rate": SOUND_RATE, "hop_length": 500, "chunk_length": 1}
    sounds = transformers.WhisperFeatureExtractor(feature_size=16, n_fft=512, **frames)
    processor = transformers.Qwen2AudioProcessor(sounds, tokenizer, chat_template=tokenizer.chat_template)
    encoder = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, **_INIT}
    features = {"num_mel_bins": 16, "max_source_positions": 16}
    config = transformers.Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **encoder, **features},
        text_config=_decoder("qwen2", tokenizer),
        audio_token_index=processor.audio_token_id,
    )
    return processor, transformers.Qwen2AudioForConditionalGeneration(config)


FAMILIES: dict[Family, Callable[[PreTrainedTokenizerFast], Built]] = {
    "llava": _llava,
    "qwen2_vl": _qwen2_vl,
    "idefics3": _idefics3,
    "paligemma": _paligemma,
    "qwen2_audio": _qwen2_audio,
}
