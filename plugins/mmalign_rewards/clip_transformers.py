"""CLIP models that transformers saves: a folder or a hub id with weights, tokenizer and image processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmalign import ConfigError
from mmalign_rewards.clip_models import ClipConfig, ClipModel, read_dtype
from mmalign_rewards.pretrained import iter_token_batches, load_frozen
from mmalign_rewards.weights import find_device

if TYPE_CHECKING:
    from PIL.Image import Image


class TransformersClip(ClipModel):
    """A frozen `transformers.CLIPModel`, e.g. PickScore.

    Raises:
        ConfigError: see `load_clip`.
    """

    def __init__(self, config: ClipConfig, where: str) -> None:
        from transformers import AutoImageProcessor, CLIPModel

        self._device = find_device(config.device, f"{where}.device")
        self._dtype = read_dtype(config.precision)
        options: dict[str, Any] = {"dtype": self._dtype, "use_safetensors": True}
        self._tokenizer, network, missing = load_frozen(CLIPModel, config.model, f"{where}.model", **options)
        if missing:
            lacks = f"{len(missing)} weights missing, e.g. {missing[0]}"
            raise ConfigError(f"{where}.model: {config.model!r} is not a whole CLIP: {lacks}")
        try:
            self._processor = AutoImageProcessor.from_pretrained(config.model)
        except (OSError, ValueError, ImportError) as error:
            cause = " ".join(str(error).split())[:300]
            raise ConfigError(f"{where}.model: {config.model!r} has no image processor: {cause}") from error
        self._network: Any = network.to(self._device)
        self._context = int(network.config.text_config.max_position_embeddings)
        self.width = int(network.config.projection_dim)
        self.logit_scale = float(network.logit_scale.float().exp())

    def embed_images(self, images: Sequence[Image]) -> Tensor:
        """Returns features [B, D] of RGB images."""
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]  # [B, 3, H, W]
        return _read_features(self._network.get_image_features(pixel_values=pixels.to(self._device, self._dtype)))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Returns features [B, D] of texts, cut to the context of the model."""
        sizes = {"batch_size": len(texts), "max_length": self._context}
        batches = iter_token_batches(self._tokenizer, texts, device=self._device, **sizes)
        return torch.cat([_read_features(self._network.get_text_features(**inputs)) for inputs in batches])


def _read_features(output: Any) -> Tensor:
    # A tensor up to transformers 4, since then an output whose pooled state is the projected one.
    features: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return features
