"""FLUX.1: a flow transformer on packed latents; reads a prompt through T5, and CLIP's pooled text.

Latents are kept as images [B, C, h, w]; only the transformer sees patches of 2 x 2 as tokens [B, h w / 4, 4 C].
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmalign import ConfigError, Parameters
from mmalign_diffusion.families.base import Tensors, input_dtype
from mmalign_diffusion.families.flow_schedules import read_shifted_schedule
from mmalign_diffusion.families.pipeline import PipelineFamily, PipelineParameters
from mmalign_diffusion.families.pipeline_checks import check_channels, check_width
from mmalign_diffusion.schedules import Schedule


class FluxParameters(PipelineParameters):
    """Adds the length of prompts and the guidance that the network is told."""

    text_length: int = Field(default=512, ge=1)
    """Tokens of a prompt that T5 reads; further ones are cut off. FLUX.1-schnell: 256."""
    embedded_guidance: float = Field(default=3.5, ge=0)
    """The guidance that a guidance-distilled network is told, as a condition; it costs no second pass."""


class Flux(PipelineFamily):
    """The family of `FluxPipeline`. See `FluxParameters`."""

    parameters: ClassVar[type[Parameters]] = FluxParameters
    family: ClassVar[str] = "flux"
    denoiser_class: ClassVar[str] = "FluxTransformer2DModel"
    autoencoder_settings: ClassVar[tuple[str, ...]] = ("shift_factor",)
    pipeline_class: ClassVar[str | None] = "FluxPipeline"
    encoder_names: ClassVar[tuple[str, ...]] = ("", "_2")
    default_sample_size: ClassVar[int] = 128

    def check_settings(self) -> None:
        """The transformer reads patches of 2 x 2 latents."""
        check_channels(self._denoiser.place, self.settings["in_channels"], self.autoencoder.channels, each=4)
        clip, long = self.encoders
        check_width(self._denoiser.place, "joint_attention_dim", self.settings["joint_attention_dim"], [long.width])
        pooled = self.settings["pooled_projection_dim"]
        check_width(self._denoiser.place, "pooled_projection_dim", pooled, [clip.pooled_width])
        if self.settings["patch_size"] != 1:
            raise ConfigError(f"{self._denoiser.place}: patch_size: {self.settings['patch_size']}; expected 1")

    @property
    def granularity(self) -> int:
        """Packing needs even sides of latents."""
        return 2 * self.autoencoder.factor

    @cached_property
    def schedule(self) -> Schedule:
        """That of the scheduler's settings, for images of the family's size."""
        _, height, width = self.latent_shape()
        return read_shifted_schedule(self.scheduler, height * width // 4)

    def tokenise_text(self, text: str) -> dict[str, Tensor]:
        """Tokens of CLIP and of T5."""
        clip, long = self.encoders
        return {"clip": clip.tokenise(text)[0], "ids": long.tokenise(text, self.options.text_length)[0]}

    def encode_prompts(self, tokens: Tensors) -> dict[str, Tensor]:
        """Hidden states of T5 and CLIP's pooled text."""
        clip, long = self.encoders
        return {
            "hidden": long.encode(tokens["ids"]).last_hidden_state,
            "pooled": clip.encode(tokens["clip"]).pooler_output,
        }

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the transformer; see `Family.predict`."""
        dtype, device = input_dtype(network), noisy.device
        height, width = noisy.shape[2:]
        guidance = torch.full((len(noisy),), self.options.embedded_guidance, device=device)
        output = network(
            hidden_states=pack(noisy).to(dtype),
            encoder_hidden_states=condition["hidden"].to(dtype),
            pooled_projections=condition["pooled"].to(dtype),
            timestep=(timesteps / 1000).to(dtype),
            img_ids=image_ids(height // 2, width // 2).to(device, dtype),
            txt_ids=torch.zeros(condition["hidden"].shape[1], 3, device=device, dtype=dtype),
            guidance=guidance if self.settings["guidance_embeds"] else None,
        ).sample
        return unpack(output, height, width)


def pack(latents: Tensor) -> Tensor:
    """Turns latents [B, C, h, w] into tokens [B, h w / 4, 4 C] of 2 x 2 patches."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height * width // 4, 4 * channels)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Turns tokens [B, h w / 4, 4 C] into latents [B, C, h, w]."""
    batch, _, channels = tokens.shape
    patches = tokens.reshape(batch, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(batch, channels // 4, height, width)


def image_ids(rows: int, columns: int) -> Tensor:
    """Returns the places (0, row, column) of an image's tokens, [rows columns, 3]."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).reshape(-1, 3).float()
