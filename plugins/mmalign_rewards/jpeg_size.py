"""How well an image compresses: the size of its JPEG file."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mmalign import Parameters, Reward, Sample
from mmalign_rewards.images import score_images

if TYPE_CHECKING:
    from PIL.Image import Image


class JpegSizeConfig(Parameters):
    """Size of the JPEG file."""

    quality: int = Field(default=95, ge=1, le=100)
    """Of the JPEG encoder; 95 as in DDPO's code."""


class Incompressibility(Reward):
    """Size of the image as a JPEG file, in kB of 1000 bytes.

    Source: Black et al., Training Diffusion Models with Reinforcement Learning, arXiv:2305.13301.
    """

    deterministic = True
    sign = 1

    def __init__(self, quality: int = 95) -> None:
        self.quality = quality

    def score(self, samples: Sequence[Sample]) -> list[Any]:
        """Returns a size, or an exception for what is no image or too large for JPEG (65,535 pixels a side)."""
        return score_images(samples, lambda _, images: [self._score(image) for image in images])

    def _score(self, image: Image) -> float | Exception:
        buffer = BytesIO()
        try:
            image.save(buffer, format="JPEG", quality=self.quality)
        except (OSError, ValueError) as error:
            return error
        return self.sign * buffer.tell() / 1000


class Compressibility(Incompressibility):
    """Minus the size of the image as a JPEG file, in kB of 1000 bytes."""

    sign = -1
