"""PixArt-alpha and PixArt-Sigma: a transformer that predicts noise and reads a prompt through T5."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmalign import ConfigError, Parameters
from mmalign_diffusion.families.base import Tensors, input_dtype
from mmalign_diffusion.families.pipeline import PipelineFamily, PipelineParameters
from mmalign_diffusion.families.pipeline_checks import check_width


class PixArtParameters(PipelineParameters):
    """Adds the length of prompts."""

    text_length: int = Field(default=120, ge=1)
    """Tokens of a prompt that T5 reads; further ones are cut off. PixArt-Sigma: 300."""


class PixArt(PipelineFamily):
    """The family of `PixArtAlphaPipeline` and `PixArtSigmaPipeline`. See `PixArtParameters`.

    Channels of a learned variance are dropped, as the pipelines drop them: they are not trained. The pipelines read no
    adapters, so these are exported in peft's format.
    """

    parameters: ClassVar[type[Parameters]] = PixArtParameters
    family: ClassVar[str] = "pixart"
    denoiser_class: ClassVar[str] = "PixArtTransformer2DModel"
    earlier_classes: ClassVar[tuple[str, ...]] = ("Transformer2DModel",)

    def check_settings(self) -> None:
        """The transformer reads what T5 gives; it may give a variance, too, which is dropped."""
        super().check_settings()
        place = self._denoiser.place
        check_width(place, "caption_channels", self.settings["caption_channels"], [self.encoders[0].width])
        channels, given = self.settings["in_channels"], self.settings["out_channels"]
        if given not in (channels, 2 * channels):
            raise ConfigError(f"{place}: out_channels: {given}; expected {channels} or {2 * channels}")

    def tokenise_text(self, text: str) -> dict[str, Tensor]:
        """Tokens of T5, which reads lower case, and which of them are not padding."""
        ids, mask = self.encoders[0].tokenise(text.lower().strip(), self.options.text_length)
        return {"ids": ids, "mask": mask}

    def encode_prompts(self, tokens: Tensors) -> dict[str, Tensor]:
        """Hidden states of T5, and the mask."""
        hidden = self.encoders[0].encode(tokens["ids"], tokens["mask"]).last_hidden_state
        return {"hidden": hidden, "mask": tokens["mask"]}

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the transformer; see `Family.predict`."""
        dtype = input_dtype(network)
        output: Tensor = network(
            noisy.to(dtype),
            condition["hidden"].to(dtype),
            timestep=timesteps,
            added_cond_kwargs=self._describe_size(noisy, dtype),
            encoder_attention_mask=condition["mask"],
        ).sample
        return output[:, : noisy.shape[1]]

    def _describe_size(self, noisy: Tensor, dtype: torch.dtype) -> dict[str, Tensor | None]:
        """Models of 1024 pixels are told the size and the aspect ratio."""
        told_sizes = self.settings["use_additional_conditions"]
        if not (self.settings["sample_size"] == 128 if told_sizes is None else told_sizes):
            return {"resolution": None, "aspect_ratio": None}
        height, width = (side * self.autoencoder.factor for side in noisy.shape[2:])
        told = torch.tensor([[height, width, height / width]], device=noisy.device, dtype=dtype).expand(len(noisy), -1)
        return {"resolution": told[:, :2], "aspect_ratio": told[:, 2:]}
