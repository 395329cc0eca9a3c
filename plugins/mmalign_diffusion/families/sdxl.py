"""Stable Diffusion XL: a UNet that reads a prompt through two text encoders, and is told an image's size and crop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmalign import ConfigError, Parameters
from mmalign_diffusion.families.base import Tensors, input_dtype
from mmalign_diffusion.families.pipeline_checks import check_width
from mmalign_diffusion.families.unet import UNetFamily, UNetParameters


class SDXLParameters(UNetParameters):
    """The guidance that a network is told has another default."""

    embedded_guidance: float = Field(default=5.0, ge=0)
    """The guidance that a guidance-distilled network (LCM) is told, as a condition; it costs no second pass."""


class SDXL(UNetFamily):
    """The family of `StableDiffusionXLPipeline`. See `SDXLParameters`.

    Source: arXiv:2307.01952, section 2.2: the size before scaling and what was cut off are conditions, so that images
    of all sizes can be trained on; images are sampled as if they had been of their own size, with nothing cut off.
    """

    parameters: ClassVar[type[Parameters]] = SDXLParameters
    family: ClassVar[str] = "sdxl"
    denoiser_values: ClassVar[Mapping[str, tuple[Any, ...]]] = {"addition_embed_type": ("text_time",)}
    autoencoder_settings: ClassVar[tuple[str, ...]] = ("latents_mean", "latents_std")
    pipeline_class: ClassVar[str | None] = "StableDiffusionXLPipeline"
    encoder_names: ClassVar[tuple[str, ...]] = ("", "_2")

    def check_settings(self) -> None:
        """The network has to be told size and crop."""
        super().check_settings()
        place, settings = self._denoiser.place, self.settings
        check_width(place, "cross_attention_dim", settings["cross_attention_dim"], [one.width for one in self.encoders])
        told = settings["addition_time_embed_dim"]
        if told is not None:  # six numbers of size and crop; the refiner's five with an aesthetic score are others
            name = "projection_class_embeddings_input_dim"
            check_width(f"{place}, with six sizes", name, settings[name], [6 * told, self.encoders[-1].pooled_width])
        if self.settings["addition_embed_type"] != "text_time":
            raise ConfigError(
                f"{self._denoiser.place}: addition_embed_type: {self.settings['addition_embed_type']!r}; expected "
                "'text_time', as sdxl is told sizes"
            )

    def tokenise_text(self, text: str) -> dict[str, Tensor]:
        """Tokens of both encoders."""
        return {f"ids{one}": encoder.tokenise(text)[0] for one, encoder in enumerate(self.encoders)}

    def encode_prompts(self, tokens: Tensors) -> dict[str, Tensor]:
        """The last but one hidden states of both encoders, and the pooled text of the second; zeros for no prompt."""
        outputs = [encoder.encode(tokens[f"ids{one}"]) for one, encoder in enumerate(self.encoders)]
        hidden = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)  # [B, L, D]
        pooled = outputs[-1].text_embeds
        if self.index.get("force_zeros_for_empty_prompt", True):
            empty = (tokens["ids0"].cpu() == self._empty["ids0"]).all(1).to(hidden.device)
            hidden, pooled = hidden.masked_fill(empty[:, None, None], 0), pooled.masked_fill(empty[:, None], 0)
        return {"hidden": hidden, "pooled": pooled}

    @cached_property
    def _empty(self) -> dict[str, Tensor]:
        return self.tokenise_text("")

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
        guidance = self.embed_guidance(len(noisy), noisy.device, dtype)
        output: Tensor = network(
            noisy.to(dtype), timesteps, condition["hidden"].to(dtype), timestep_cond=guidance, added_cond_kwargs=added
        ).sample
        return output
