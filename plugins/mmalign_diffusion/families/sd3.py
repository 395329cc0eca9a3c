"""Stable Diffusion 3 and 3.5: a flow transformer that reads a prompt through two CLIP encoders and, if there, T5."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from mmalign import Parameters
from mmalign_diffusion.families.base import Tensors, input_dtype
from mmalign_diffusion.families.flow_schedules import read_shifted_schedule
from mmalign_diffusion.families.pipeline import PipelineFamily, PipelineParameters
from mmalign_diffusion.families.pipeline_checks import check_width
from mmalign_diffusion.schedules import Schedule


class SD3Parameters(PipelineParameters):
    """Adds how T5 reads prompts."""

    t5: bool = True
    """Let T5 read the prompt, if the pipeline has it. It needs most of the memory of the frozen encoders."""

    text_length: int = Field(default=256, ge=1)
    """Tokens of a prompt that T5 reads, or zeros in their place; further ones are cut off."""


class SD3(PipelineFamily):
    """The family of `StableDiffusion3Pipeline`. See `SD3Parameters`."""

    parameters: ClassVar[type[Parameters]] = SD3Parameters
    family: ClassVar[str] = "sd3"
    denoiser_class: ClassVar[str] = "SD3Transformer2DModel"
    autoencoder_settings: ClassVar[tuple[str, ...]] = ("shift_factor",)
    pipeline_class: ClassVar[str | None] = "StableDiffusion3Pipeline"
    encoder_names: ClassVar[tuple[str, ...]] = ("", "_2", "_3")

    @cached_property
    def schedule(self) -> Schedule:
        """That of the scheduler's settings, for images of the family's size."""
        _, height, width = self.latent_shape()
        return read_shifted_schedule(self.scheduler, height * width // int(self.settings["patch_size"]) ** 2)

    def check_settings(self) -> None:
        """The transformer reads what T5 gives, and CLIP's two pooled texts."""
        super().check_settings()
        place, clips, rest = self._denoiser.place, self.encoders[:2], self.encoders[2:]
        if rest:
            check_width(place, "joint_attention_dim", self.settings["joint_attention_dim"], [rest[0].width])
        pooled = self.settings["pooled_projection_dim"]
        check_width(place, "pooled_projection_dim", pooled, [one.pooled_width for one in clips])

    def reads_through(self, suffix: str) -> bool:
        """T5 may be missing, or left out."""
        there = (self.index.get(f"text_encoder{suffix}") or [None])[0]
        return suffix != "_3" or (self.options.t5 and there is not None)

    def tokenise_text(self, text: str) -> dict[str, Tensor]:
        """Tokens of all encoders that there are."""
        own = [encoder.tokenise(text, length) for encoder, length in zip(self.encoders, self._lengths, strict=False)]
        return {f"ids{one}": ids for one, (ids, _) in enumerate(own)}

    def encode_prompts(self, tokens: Tensors) -> dict[str, Tensor]:
        """Hidden states of CLIP, side by side, and then those of T5, or zeros for them; and CLIP's pooled texts."""
        clips = [encoder.encode(tokens[f"ids{one}"]) for one, encoder in enumerate(self.encoders[:2])]
        hidden = torch.cat([output.hidden_states[-2] for output in clips], dim=-1)  # [B, L, D]
        width: int = self.settings["joint_attention_dim"]
        if len(self.encoders) > 2:
            long = self.encoders[2].encode(tokens["ids2"]).last_hidden_state
        else:
            long = hidden.new_zeros(len(hidden), self.options.text_length, width)
        hidden = torch.cat([pad(hidden, (0, width - hidden.shape[-1])), long.to(hidden.dtype)], dim=1)
        return {"hidden": hidden, "pooled": torch.cat([output.text_embeds for output in clips], dim=-1)}

    def predict(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Tensors) -> Tensor:
        """Runs the transformer; see `Family.predict`."""
        dtype = input_dtype(network)
        hidden, pooled = condition["hidden"].to(dtype), condition["pooled"].to(dtype)
        output: Tensor = network(noisy.to(dtype), hidden, pooled, timesteps).sample
        return output

    @property
    def _lengths(self) -> tuple[int | None, int | None, int]:
        return None, None, self.options.text_length
