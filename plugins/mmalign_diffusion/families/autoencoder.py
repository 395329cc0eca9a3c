"""The frozen autoencoder of a pipeline: pixels to the latents that the denoiser works on, and back.

Shapes: B images, C channels of latents, H W of pixels, h w of latents.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from mmalign_diffusion.families.components import Component, Frozen


class Autoencoder(Frozen):
    """An `AutoencoderKL`. Latents are (z - shift_factor) * scaling_factor, by its settings."""

    def __init__(self, component: Component, dtype: torch.dtype | None = None) -> None:
        settings = component.settings
        # SDXL's overflows in half precision and says so.
        dtype = dtype or (torch.float32 if settings.get("force_upcast", True) else None)
        super().__init__(component, "diffusers", "AutoencoderKL", dtype)
        self.factor: int = 2 ** (len(settings["block_out_channels"]) - 1)
        self.channels: int = settings["latent_channels"]
        self._scaling: float = settings.get("scaling_factor") or 1.0
        self._shift: float = settings.get("shift_factor") or 0.0

    def load(self) -> nn.Module:
        """Loads the network; it takes images one at a time, so that memory and results do not depend on how many."""
        network: Any = super().load()
        network.enable_slicing()
        return cast(nn.Module, network)

    def encode(self, pixels: Tensor) -> list[dict[str, Tensor]]:
        """Computes `mean` and `std` [C, h, w] of the posterior of every image of pixels [B, 3, H, W] in [-1, 1]."""
        with self.running() as network:
            posterior = network.encode(pixels.to(self.device, self.dtype)).latent_dist
        return [{"mean": mean, "std": std} for mean, std in zip(posterior.mean, posterior.std, strict=True)]

    def normalise(self, values: Tensor) -> Tensor:
        """Turns values z of the posterior into latents, float32."""
        return (values.float() - self._shift) * self._scaling

    def decode(self, latents: Tensor) -> Tensor:
        """Turns latents [B, C, h, w] into pixels [B, 3, H, W] in about [-1, 1], float32."""
        with self.running() as network:
            values = (latents.to(self.device).float() / self._scaling + self._shift).to(self.dtype)
            pixels: Tensor = network.decode(values).sample
        return pixels.float()
