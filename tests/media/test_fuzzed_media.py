"""1,000 mutated files of ten kinds: each is read or one error, soon, and with little memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import put
from media_mutations import IMAGES, SOUNDS, mutate, whole_file

from mmalign import Media, MediaError, MediaLimits, open_image, open_sound
from mmalign.media.images import read_header
from mmalign.media.sounds import read_sound_header

COUNT = 100
LONGEST = 5.0  # seconds a file, on a busy machine; they take milliseconds
LIMITS = MediaLimits(pixels=10**6, samples=10**6)


def look(path: Path, kind: str) -> str:
    """Reads header and content; returns what went wrong, an empty text where nothing did."""
    media = Media(mid="m", type="audio" if kind in SOUNDS else "image", uri=str(path))
    told = ""
    for level in (_read_header, _read_all):
        try:
            level(media, kind)
        except MediaError as error:
            told = str(error)
            assert told.startswith(f"here: {path}: ") and "\n" not in told and len(told) < 500
    return told


def _read_header(media: Media, kind: str) -> None:
    read: Any = read_sound_header if kind in SOUNDS else read_header
    read(media, where="here", limits=LIMITS)


def _read_all(media: Media, kind: str) -> None:
    if kind in SOUNDS:
        samples = open_sound(media, where="here", rate=8000, limits=LIMITS)
        assert samples.dtype == np.float32 and np.isfinite(samples).all() and np.abs(samples).max() <= 1
    else:
        image = open_image(media, where="here", limits=LIMITS)
        assert image.mode in ("L", "RGB") and image.width * image.height <= LIMITS.pixels


@pytest.mark.parametrize("kind", [*IMAGES, *SOUNDS])
def test_a_mutated_file_is_read_or_one_error(kind: str, tmp_path: Path, little_memory: None) -> None:
    assert look(put(tmp_path, "whole", whole_file(kind)), kind) == ""
    failed: dict[str, str] = {}
    refused = 0
    for number, content in enumerate(mutate(whole_file(kind), COUNT, kind)):
        begun = time.monotonic()
        try:
            refused += bool(look(put(tmp_path, "a", content), kind))
        except Exception as error:  # noqa: BLE001
            failed[f"{kind} {number}"] = repr(error)
        assert time.monotonic() - begun < LONGEST, f"{kind} {number}"
    assert failed == {}
    assert refused > COUNT / 10
