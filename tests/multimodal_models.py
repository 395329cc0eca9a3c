"""Tiny random multimodal language models with their processors in folders, made in code, with inputs for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from tiny_media import SIDE, SOUND_RATE

from mmalign.testing import build_tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

    Built = tuple[ProcessorMixin, PreTrainedModel]

Family = Literal[
    "llava",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "internvl",
    "idefics3",
    "paligemma",
    "gemma3",
    "qwen2_audio",
]

_QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

MEDIA: dict[Family, str] = {
    "llava": "<image>",
    "qwen2_vl": _QWEN_IMAGE,
    "qwen2_5_vl": _QWEN_IMAGE,
    "qwen3_vl": _QWEN_IMAGE,
    "internvl": "<IMG_CONTEXT>",
    "idefics3": "<image>",
    "paligemma": "<image>",
    "gemma3": "<start_of_image>",
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

_QWEN_TOKENS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
_EXTRA_TOKENS: dict[Family, list[str]] = {
    "llava": ["<image>"],
    "qwen2_vl": _QWEN_TOKENS,
    "qwen2_5_vl": _QWEN_TOKENS,
    "qwen3_vl": _QWEN_TOKENS,
    "idefics3": ["<image>", "<fake_token_around_image>", "<global-img>"],
    "paligemma": ["<image>"],
    "qwen2_audio": ["<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"],
}
# Some processors ask the tokenizer for its tokens, by these names.
_NAMED_TOKENS: dict[Family, dict[str, str]] = {
    "internvl": {
        "start_image_token": "<img>",
        "context_image_token": "<IMG_CONTEXT>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    },
    "gemma3": {
        "boi_token": "<start_of_image>",
        "image_token": "<image_soft_token>",
        "eoi_token": "<end_of_image>",
    },
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


def _tokenizer(family: Family) -> PreTrainedTokenizerFast:
    tokenizer = build_tiny_tokenizer(384)
    named = _NAMED_TOKENS.get(family, {})
    tokenizer.SPECIAL_TOKENS_ATTRIBUTES = [*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, *named]
    extra = _EXTRA_TOKENS.get(family, [])
    tokenizer.add_special_tokens({"pad_token": "<|pad|>", **named, "extra_special_tokens": extra})
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
    """A token per 14 x 14 pixels, from 1 to 16 per image; see `_qwen_vl`."""
    processor, settings = _qwen_vl(tokenizer, transformers.Qwen2VLProcessor, transformers.Qwen2VLVideoProcessor)
    config = transformers.Qwen2VLConfig(
        text_config=_decoder("qwen2_vl_text", tokenizer, rope_parameters=_ROPE),
        vision_config={**_QWEN_TOWER, "embed_dim": 32, "mlp_ratio": 2},
        **settings,
    )
    return processor, transformers.Qwen2VLForConditionalGeneration(config)


def _qwen2_5_vl(tokenizer: PreTrainedTokenizerFast) -> Built:
    """As `_qwen2_vl`, but the first of the tower's two layers sees windows of 28 x 28 pixels."""
    processor, settings = _qwen_vl(tokenizer, transformers.Qwen2_5_VLProcessor, transformers.Qwen2VLVideoProcessor)
    layers = {"window_size": 28, "fullatt_block_indexes": [1]}
    config = transformers.Qwen2_5_VLConfig(
        text_config=_decoder("qwen2_5_vl_text", tokenizer, rope_parameters=_ROPE),
        vision_config={**_QWEN_TOWER, **layers, "intermediate_size": 64, "out_hidden_size": 32},
        **settings,
    )
    return processor, transformers.Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(tokenizer: PreTrainedTokenizerFast) -> Built:
    """As `_qwen2_vl`, but what the tower's first layer saw is added after the first layer of the text model, too."""
    processor, settings = _qwen_vl(tokenizer, transformers.Qwen3VLProcessor, transformers.Qwen3VLVideoProcessor)
    layers = {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    rope = {**_ROPE, "mrope_interleaved": True}
    config = transformers.Qwen3VLConfig(
        text_config=_decoder("qwen3_vl_text", tokenizer, rope_parameters=rope, head_dim=8),
        vision_config={**_QWEN_TOWER, **layers, "intermediate_size": 64, "out_hidden_size": 32},
        **settings,
    )
    return processor, transformers.Qwen3VLForConditionalGeneration(config)


_QWEN_PATCHES = {"patch_size": 7, "temporal_patch_size": 2}
_QWEN_TOWER = {"depth": 2, "hidden_size": 32, "num_heads": 4, "spatial_merge_size": 2, **_QWEN_PATCHES, **_INIT}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}


def _qwen_vl(
    tokenizer: PreTrainedTokenizerFast, kind: type[ProcessorMixin], videos: Callable[..., Any]
) -> tuple[ProcessorMixin, dict[str, Any]]:
    """The processor of this kind and the tokens that it writes, for a model's configuration."""
    sizes = {**_QWEN_PATCHES, "merge_size": 2, "min_pixels": 14 * 14, "max_pixels": 16 * 14 * 14}
    images = transformers.Qwen2VLImageProcessor(**sizes)
    processor: Any = kind(images, tokenizer, videos(**sizes), chat_template=tokenizer.chat_template)
    start, end = tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|vision_end|>"])
    marks = {"vision_start_token_id": start, "vision_end_token_id": end}
    places = {"image_token_id": processor.image_token_id, "video_token_id": processor.video_token_id}
    return processor, {**marks, **places}


def _internvl(tokenizer: PreTrainedTokenizerFast) -> Built:
    """4 tokens for each view of an image between two marks: one view, or two halves and the whole if it is long."""
    size = {"height": SIDE, "width": SIDE}
    images = transformers.GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=2)
    videos = transformers.InternVLVideoProcessor(size=size)
    template = tokenizer.chat_template
    processor = transformers.InternVLProcessor(images, tokenizer, videos, image_seq_length=4, chat_template=template)
    config = transformers.InternVLConfig(
        text_config=_decoder("qwen2", tokenizer),
        vision_config={**_TOWER, **_INIT, "image_size": SIDE, "patch_size": 7},
        image_token_id=processor.image_token_id,
        image_seq_length=4,
    )
    return processor, transformers.InternVLForConditionalGeneration(config)


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


def _gemma3(tokenizer: PreTrainedTokenizerFast) -> Built:
    """4 tokens per image, whatever its size, between two marks; they see each other, and a layer sees 8 tokens back."""
    images = transformers.Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    template = tokenizer.chat_template
    processor = transformers.Gemma3Processor(images, tokenizer, image_seq_length=4, chat_template=template)
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    start, image, end = tokenizer.convert_tokens_to_ids(list(_NAMED_TOKENS["gemma3"].values()))
    vision = {"model_type": "siglip_vision_model", **_TOWER, "image_size": SIDE, "patch_size": 7}
    config = transformers.Gemma3Config(
        text_config=_decoder("gemma3_text", tokenizer, head_dim=8, query_pre_attn_scalar=8, **layers),
        vision_config={**vision, "vision_use_head": False},
        image_token_index=image,
        boi_token_index=start,
        eoi_token_index=end,
        mm_tokens_per_image=4,
    )
    model = transformers.Gemma3ForConditionalGeneration(config)
    # What joins tower and text model starts from zero.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.1)
    return processor, model


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
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
    "idefics3": _idefics3,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "qwen2_audio": _qwen2_audio,
}
