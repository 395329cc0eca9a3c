"""Compressibility: the size of the JPEG file, in kB, with its sign."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from image_models import make_image_samples, random_images
from PIL import Image
from pydantic import ValidationError

from mmalign_rewards.jpeg_size import Compressibility, Incompressibility, JpegSizeConfig


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_the_score_is_the_size_of_the_file_in_kilobytes() -> None:
    buffer = BytesIO()
    noise().save(buffer, format="JPEG", quality=95)
    size = len(buffer.getvalue()) / 1000
    assert Incompressibility().score(make_image_samples([noise()])) == [size]
    assert Compressibility().score(make_image_samples([noise()])) == [-size]
    assert 5 < size < 20  # 64 x 64 x 3 bytes of noise hardly shrink below 12.3 kB


def test_flat_compresses_better_than_noise_and_low_quality_better_than_high() -> None:
    flat = Image.new("RGB", (64, 64), "red")
    first, second = Compressibility().score(make_image_samples([flat, noise()]))
    assert first > second + 4
    (coarse,) = Compressibility(quality=30).score(make_image_samples([noise()]))
    assert coarse > second + 1


def test_scores_do_not_depend_on_the_batch_and_are_the_same_again() -> None:
    samples = make_image_samples(random_images(4))
    together = Compressibility().score(samples)
    assert together == [Compressibility().score([sample])[0] for sample in samples]
    assert Compressibility().score(samples[::-1]) == together[::-1]
    assert Compressibility.deterministic and Incompressibility.deterministic


def test_an_image_too_large_for_the_format_has_no_score() -> None:
    (score,) = Compressibility().score(make_image_samples([Image.new("L", (65_536, 1))]))
    assert isinstance(score, (OSError, ValueError))


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_outside_its_range_is_refused(quality: int) -> None:
    with pytest.raises(ValidationError, match="quality"):
        JpegSizeConfig(quality=quality)
