"""What the pipelines with a `UNet2DConditionModel` share: the guidance that a distilled network is told."""

from __future__ import annotations

from math import log
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ConfigError, Parameters
from mmalign_diffusion.families.pipeline import PipelineFamily, PipelineParameters


class UNetParameters(PipelineParameters):
    """Adds the guidance that the network is told."""

    embedded_guidance: float = Field(default=7.5, ge=0)
    """The guidance that a guidance-distilled network (LCM) is told, as a condition; it costs no second pass."""


class UNetFamily(PipelineFamily):
    """A pipeline whose denoiser is a UNet. See `UNetParameters`.

    A network with `time_cond_proj_dim` is told its guidance, in training and in sampling, and has no null condition:
    its pipelines never compare with one.
    """

    parameters: ClassVar[type[Parameters]] = UNetParameters
    part: ClassVar[str] = "unet"
    denoiser_class: ClassVar[str] = "UNet2DConditionModel"

    @property
    def has_null_condition(self) -> bool:
        """Returns whether there is one: where the network is not told its guidance."""
        return self.settings["time_cond_proj_dim"] is None

    def check_settings(self) -> None:
        """The network gives as many channels as it reads, so no variance."""
        super().check_settings()
        got, expected = self.settings["out_channels"], self.settings["in_channels"]
        if got != expected:
            raise ConfigError(f"{self._denoiser.place}: out_channels: {got}; expected {expected}, as many as it reads")

    def embed_guidance(self, count: int, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """Returns what the network is told of `embedded_guidance`, [count, D]; None where it is told nothing."""
        if self.has_null_condition:
            return None
        told = torch.full((count,), self.options.embedded_guidance - 1, device=device)
        return embed_scale(told, self.settings["time_cond_proj_dim"]).to(dtype)


def embed_scale(scales: Tensor, features: int) -> Tensor:
    """Embeds guidance scales w - 1 [B] as sines and cosines [B, features], float32.

    Source: arXiv:2310.04378, and `get_guidance_scale_embedding` of diffusers' StableDiffusionPipeline.
    """
    half = features // 2
    rates = torch.exp(-log(10_000.0) / max(half - 1, 1) * torch.arange(half, device=scales.device))
    angles = 1000.0 * scales.float()[:, None] * rates
    embedded = torch.cat([angles.sin(), angles.cos()], dim=1)
    return torch.nn.functional.pad(embedded, (0, features - 2 * half))
