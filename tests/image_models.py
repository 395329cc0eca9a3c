"""Images as samples of a reward, and tiny random CLIP models in folders, made in code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from mmalign import Record, Sample

WORDS = ("[PAD]", "[UNK]", "a", "cat", "red", "photo", "dog", "[BOS]", "[EOS]")
SIDE = 32
WIDTH = 16


def make_image_samples(images: Sequence[Any], prompts: Sequence[str] = (), meta: str | None = None) -> list[Sample]:
    """Samples with these outputs, in order; a single prompt unless each has its own."""
    texts = prompts or ["a cat"] * len(images)
    records = [Record.from_text(text, ["x"]).model_copy(update={"meta": meta}) for text in texts]
    return [Sample(record, record.responses[0], image) for record, image in zip(records, images, strict=True)]


def random_images(count: int, seed: int = 0, size: tuple[int, int] = (40, 48)) -> list[Image.Image]:
    """RGB images of coarse random blocks, which differ in colour as a whole."""
    generator = np.random.default_rng(seed)
    blocks = generator.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(block).resize(size, Image.Resampling.BICUBIC) for block in blocks]


def save_open_clip(folder: Path, seed: int = 0) -> Path:
    """An open_clip model of random weights, with its configuration."""
    import open_clip

    torch.manual_seed(seed)
    vision = {"image_size": SIDE, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}
    folder.mkdir(parents=True)
    network = open_clip.CLIP(
        WIDTH, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text), init_logit_scale=1.5
    )
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return folder


def save_transformers_clip(folder: Path, seed: int = 0) -> Path:
    """A transformers CLIP of random weights, with its tokenizer and image processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    torch.manual_seed(seed)
    layers = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 32}
    ends = {"bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 0}
    text = {**layers, **ends, "vocab_size": len(WORDS), "max_position_embeddings": 8}
    vision = {**layers, "image_size": SIDE, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH, logit_scale_init_value=1.5)
    CLIPModel(config).save_pretrained(folder)
    core = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 7), ("[EOS]", 8)])
    special = {"unk_token": "[UNK]", "pad_token": "[PAD]", "eos_token": "[EOS]", "bos_token": "[BOS]"}
    PreTrainedTokenizerFast(tokenizer_object=core, **special, model_max_length=8).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
