"""How a denoiser samples: levels, guidance, noise, and noise that can be repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from mmalign import Decoding, Parameters

Spacing = Literal["trailing", "leading"]


class DiffusionDecodingConfig(Parameters):
    """Denoising."""

    max_steps: int = Field(default=25, ge=1)
    """Steps of the sampler, each one forward pass; two with guidance."""
    guidance: float | None = Field(default=None, ge=0)
    """Classifier-free guidance; 1 is none; default the modality's."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """Share of the noise that a step draws anew: 0 is DDIM, or Euler's method for flows; 1 is DDPM. Of
    `diffusion_path` the modality says it."""
    spacing: Spacing = "trailing"
    """Where the levels lie: `trailing` begins with the noisiest one, `leading` ends with the one before the last."""
    seed: int | None = Field(default=None, ge=0, lt=2**62)
    """The same prompt and place in its group then get the same noise in every call, before and after training. Without
    it noise follows the run's seed, so that evaluations repeat theirs and training does not."""


@dataclass
class DiffusionDecoding(Decoding):
    """Settings of the sampler; the fields are those of `DiffusionDecodingConfig`."""

    max_steps: int = 25
    guidance: float | None = None
    eta: float = 0.0
    spacing: Spacing = "trailing"
    seed: int | None = None


def as_diffusion(decoding: Decoding) -> DiffusionDecoding:
    """Reads any decoding as one of a denoiser; of others only temperature and step limit count."""
    if isinstance(decoding, DiffusionDecoding):
        return decoding
    return DiffusionDecoding(temperature=decoding.temperature, max_steps=decoding.max_steps)
