"""Stable Diffusion XL: a UNet that reads a prompt through two text encoders, and is told an image's size and crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmalign_diffusion.families.base import Tensors, input_dtype
from mmalign_diffusion.families.pipeline import PipelineFamily


class SDXL(PipelineFamily):
    """The family of `StableDiffusionXLPipeline`. See `PipelineParameters`.

    Source: arXiv:2307.01952, section 2.2: the size before scaling and what was cut off are conditions, so that images
    of all sizes can be trained on; images are sampled as if they had been of their own size, with nothing cut off.
    """

    part: ClassVar[str] = "unet"
    denoiser_class: ClassVar[str] = "UNet2DConditionModel"
    pipeline_class: ClassVar[str | None] = "StableDiffusionXLPipeline"
    encoder_names: ClassVar[tuple[str, ...]] = ("", "_2")
    default_sample_size: ClassVar[int] = 128

    def tokenise_text(self, text: str) -> dict[str, Tensor]:
        """Tokens of both encoders."""
        return {f"ids{one}": encoder.tokenise(text)[0] for one, encoder in enumerate(self.encoders)}

    def encode_prompts(self, tokens: Tensors) -> dict[str, Tensor]:
        """The last but one hidden states of both encoders, and the pooled text of the second; zeros for no prompt."""
        outputs = [encoder.encode(tokens[f"ids{one}"]) for one, encoder in enumerate(self.encoders)]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)  # [B, L, D]
        pooled = outputs[-1].text_embeds
        if self.index.get("force_zeros_for_empty_prompt", True):
            empty = (tokens["ids0"].cpu() == self.null_tokens["ids0"]).all(1).to(hidden.device)
            hidden, pooled = hidden.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        return {"hidden": hidden, "pooled": pooled}

    def describe_image(
        self, original: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """The six numbers of an image, (height, width) or (top, left) each."""
        return {"time_ids": torch.tensor([*original, *corner, *size], dtype=torch.float32)}

    def details(self, latents: Sequence[int]) -> dict[str, Tensor]:
        """Those of an image of its own size, with nothing cut off."""
        size = latents[1] * self.autoencoder.factor, latents[2] * self.autoencoder.factor
        return self.describe_image(size, (0, 0), size)

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the UNet; see `Family.predict`."""
        dtype = input_dtype(network)
        told = condition.get("time_ids")
        if told is None:
            told = self.details(noisy.shape[1:])["time_ids"].to(noisy.device).expand(len(noisy), -1)
        added = {"text_embeds": condition["pooled"].to(dtype), "time_ids": told.to(dtype)}
        output: Tensor = network(
            noisy.to(dtype), timesteps, condition["hidden"].to(dtype), added_cond_kwargs=added
        ).sample
        return output
