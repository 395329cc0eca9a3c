"""The frozen autoencoder of a pipeline: pixels to the latents that the denoiser works on, and back.

Shapes: B images, C channels of latents, H W of pixels, h w of latents.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmalign import ConfigError
from mmalign_diffusion.families.class_settings import read_network
from mmalign_diffusion.families.components import Component, Frozen


class Autoencoder(Frozen):
    """An `AutoencoderKL`: latents are (z - shift_factor - latents_mean) scaling_factor / latents_std, by its settings.

    Args:
        component: its folder.
        dtype: see `Frozen`.
        honoured: which of these settings the pipeline reads beside `scaling_factor`; others are refused.
    """

    def __init__(
        self, component: Component, dtype: torch.dtype | None = None, honoured: Collection[str] = ("shift_factor",)
    ) -> None:
        settings = read_network(component.settings, "AutoencoderKL", component.place, also=honoured)
        # SDXL's overflows in half precision and says so.
        dtype = dtype or (torch.float32 if settings["force_upcast"] else None)
        super().__init__(component, "diffusers", "AutoencoderKL", dtype)
        for name in ("in_channels", "out_channels"):
            if settings[name] != 3:
                raise ConfigError(f"{component.place}: {name}: {settings[name]}; expected 3, of RGB")
        for name in ("latents_mean", "latents_std"):
            own = settings[name]
            if own is not None and (not isinstance(own, list) or len(own) != settings["latent_channels"]):
                raise ConfigError(f"{component.place}: {name}: expected {settings['latent_channels']} numbers")
        self.factor: int = 2 ** (len(settings["block_out_channels"]) - 1)
        self.channels: int = settings["latent_channels"]
        self._scaling = _spread(settings["scaling_factor"]) / _spread(settings["latents_std"] or 1.0)
        self._shift = _spread(settings["shift_factor"] or 0.0) + _spread(settings["latents_mean"] or 0.0)

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
        shift, scaling = self._shift.to(values.device), self._scaling.to(values.device)
        return (values.float() - shift) * scaling

    def decode(self, latents: Tensor) -> Tensor:
        """Turns latents [B, C, h, w] into pixels [B, 3, H, W] in about [-1, 1], float32."""
        with self.running() as network:
            shift, scaling = self._shift.to(self.device), self._scaling.to(self.device)
            values = (latents.to(self.device).float() / scaling + shift).to(self.dtype)
            pixels: Tensor = network.decode(values).sample
        return pixels.float()


def _spread(value: float | Sequence[float]) -> Tensor:
    """Gives a number, or one for every channel, the shape of latents: [C or 1, 1, 1], float32."""
    return torch.tensor(value, dtype=torch.float32).reshape(-1, 1, 1)
