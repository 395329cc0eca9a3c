"""Sizes of images by aspect ratio."""

from __future__ import annotations

import pytest

from mmalign_diffusion.buckets import bucket_sizes, nearest_bucket
from mmalign_diffusion.images import crop_corner

SDXL = [(512, 2048), (512, 1856), (576, 1664), (640, 1536), (704, 1408), (768, 1280), (832, 1216), (896, 1152)]
"""Some of the sizes in SDXL's list, and the square one."""


def test_sizes_at_the_budget_of_sdxl_hold_those_of_its_list() -> None:
    sizes = bucket_sizes(1024 * 1024, 64)
    assert {*SDXL, *((width, height) for height, width in SDXL), (1024, 1024)} <= set(sizes)
    assert all(height % 64 == width % 64 == 0 and height * width <= 1024 * 1024 for height, width in sizes)
    assert max(width / height for height, width in sizes) == 4
    assert {(width, height) for height, width in sizes} == set(sizes)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(3000, 3000, (1024, 1024)), (1080, 1920, (768, 1344)), (1920, 1080, (1344, 768)), (10, 1000, (512, 2048))],
)
def test_the_nearest_size_is_that_of_the_nearest_ratio(height: int, width: int, expected: tuple[int, int]) -> None:
    assert nearest_bucket(height, width, bucket_sizes(1024 * 1024, 64)) == expected


def test_of_equal_ratios_the_larger_size_is_taken() -> None:
    assert nearest_bucket(30, 10, [(12, 4), (24, 8)]) == (24, 8)


def test_the_corner_of_a_crop_is_in_pixels_of_the_scaled_image() -> None:
    assert crop_corner(1000, 500, (64, 64)) == (32, 0)
    assert crop_corner(64, 64, (64, 64)) == (0, 0)
