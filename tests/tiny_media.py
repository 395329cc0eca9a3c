"""Random images and sounds for models that see or hear."""

from __future__ import annotations

import numpy as np
from image_models import random_images
from numpy.typing import NDArray
from PIL import Image

SIDE = 28
"""Of the square images that all vision towers but those of Qwen see, in pixels."""

SOUND_RATE = 16000
"""Of the sounds that qwen2_audio hears, in samples per second."""


def tiny_image(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """An RGB image of coarse random blocks, of this width and height."""
    return random_images(1, seed, size)[0]


def tiny_sound(seed: int, seconds: float) -> NDArray[np.float32]:
    """A waveform of three random tones, of which the feature extractor keeps the first second."""
    generator = np.random.default_rng(seed)
    pitches = generator.uniform(100, 4000, (3, 1))
    times = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return np.sin(2 * np.pi * pitches * times).mean(axis=0).astype(np.float32)
