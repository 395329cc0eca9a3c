"""The same model, images and texts for both systems of `images.py`.

The model joins SmolLM2-135M-Instruct's weights to a random vision tower of the size of ViT-B/16: 12 layers of width
768, 196 tokens for an image of 224 x 224 pixels.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import torch
from measuring import Case
from PIL import Image
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from workloads import draw_pairs, find_model

from mmalign import cache_folder

SIDE, PATCH = 224, 16
QUESTION_WORDS, RESPONSE_WORDS = (5, 15), (15, 105)
"""Fewest and most."""

TOWER = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{{ part['text'] if part['type'] == 'text' else '<image>' }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML without a system message."""


def find_image_model() -> Path:
    """Returns the folder of the model in bfloat16 with its processor; built once."""
    network, tokenizer = find_model(torch.bfloat16)
    target = cache_folder("benchmarks") / f"images-{network.parent.name}"
    if not target.is_dir():
        # Built beside its place and renamed, so that a killed run leaves no half of a folder.
        unfinished = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
        build_image_model(network, tokenizer, unfinished)
        unfinished.rename(target)
    return target


def build_image_model(network: Path, tokenizer: Path, folder: Path) -> None:
    """Writes a Llava model around a language model, and its processor."""
    torch.manual_seed(0)
    text = AutoModelForCausalLM.from_pretrained(network, dtype=torch.bfloat16)
    processor = _build_processor(tokenizer)
    text.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    config = LlavaConfig(
        text_config=text.config,
        vision_config=CLIPVisionConfig(**TOWER, image_size=SIDE, patch_size=PATCH),
        image_token_index=processor.image_token_id,
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config).to(torch.bfloat16)
    model.get_decoder().load_state_dict(text.get_decoder().state_dict())
    model.tie_weights()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _build_processor(tokenizer: Path) -> LlavaProcessor:
    tokenise = AutoTokenizer.from_pretrained(tokenizer)
    tokenise.add_special_tokens({"extra_special_tokens": ["<image>"]})
    tokenise.chat_template = CHAT_TEMPLATE
    images = CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    # The tower's own class token is one more than the patches, and is not among the tokens of an image.
    features = {"num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    return LlavaProcessor(images, tokenise, patch_size=PATCH, chat_template=CHAT_TEMPLATE, **features)


def build_image_pairs(case: Case, folder: Path) -> list[dict[str, str]]:
    """Builds rows of image, prompt, chosen and rejected, for the warm-up step too; writes the images, random blocks."""
    rows = draw_pairs(QUESTION_WORDS, RESPONSE_WORDS, case.prompts * (case.steps + 1))
    generator = torch.Generator().manual_seed(0)
    for index, row in enumerate(rows):
        blocks = torch.randint(256, (SIDE // PATCH, SIDE // PATCH, 3), generator=generator, dtype=torch.uint8)
        row["image"] = str(folder / f"{index}.png")
        Image.fromarray(blocks.numpy()).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(row["image"])
    return rows


def ask(row: dict[str, str]) -> list[dict[str, Any]]:
    """Writes the prompt of a row as chat templates read it: the image, then the question."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["prompt"]}]}]


def to_record(number: int, row: dict[str, str]) -> dict[str, Any]:
    """Turns a row into a record of mmalign."""
    (message,) = ask(row)
    shown, question = message["content"]
    answers = {rid: [{"type": "text", "text": row[rid]}] for rid in ("chosen", "rejected")}
    return {
        "id": str(number),
        "schema": "mmalign/1",
        "prompt": [{**message, "content": [{**shown, "media": "image"}, question]}],
        "media": [{"mid": "image", "type": "image", "uri": row["image"]}],
        "responses": [
            {"rid": rid, "messages": [{"role": "assistant", "content": content}]} for rid, content in answers.items()
        ],
        "labels": [{"kind": "pair", "order": [["chosen"], ["rejected"]]}],
    }
