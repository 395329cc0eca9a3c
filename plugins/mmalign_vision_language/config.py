"""Keys of the vision-language modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from mmalign import LanguageParameters


class VisionLanguageConfig(LanguageParameters):
    """A language model that reads images or sounds, and how records become its inputs."""

    processor: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the model's processor, e.g. `max_pixels`, above which it makes images smaller."""
    train_towers: bool = False
    """Train, or adapt, also what reads images and sounds, and what joins it to the language model."""
