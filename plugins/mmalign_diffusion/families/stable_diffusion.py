"""Stable Diffusion 1.x and 2.x: a UNet on latents that reads a prompt through CLIP; predicts noise or velocity."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mmalign_diffusion.families.base import Tensors, input_dtype
from mmalign_diffusion.families.pipeline_checks import check_width
from mmalign_diffusion.families.unet import UNetFamily


class StableDiffusion(UNetFamily):
    """The family of `StableDiffusionPipeline`. See `UNetParameters`."""

    family: ClassVar[str] = "stable_diffusion"
    pipeline_class: ClassVar[str | None] = "StableDiffusionPipeline"

    def check_settings(self) -> None:
        """The network reads what CLIP gives."""
        super().check_settings()
        name = "cross_attention_dim" if self.settings["encoder_hid_dim"] is None else "encoder_hid_dim"
        check_width(self._denoiser.place, name, self.settings[name], [self.encoders[0].width])

    def tokenise_text(self, text: str) -> dict[str, Tensor]:
        """Tokens of CLIP."""
        return {"ids": self.encoders[0].tokenise(text)[0]}

    def encode_prompts(self, tokens: Tensors) -> dict[str, Tensor]:
        """The last hidden states, normalised."""
        return {"hidden": self.encoders[0].encode(tokens["ids"]).last_hidden_state}

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the UNet; see `Family.predict`."""
        dtype = input_dtype(network)
        told = self.embed_guidance(len(noisy), noisy.device, dtype)
        output: Tensor = network(noisy.to(dtype), timesteps, condition["hidden"].to(dtype), timestep_cond=told).sample
        return output
