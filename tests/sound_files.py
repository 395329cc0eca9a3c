"""WAV files for tests, also such as no writer would make, and how they are read."""

from __future__ import annotations

import struct
import wave
from io import BytesIO
from typing import Any

import numpy as np

from mmalign import Media, MediaLimits, open_sound

RATE = 8000
WIDTHS = (1, 2, 3, 4)


def read(uri: object, rate: int = RATE, *, limits: MediaLimits = MediaLimits(), **options: Any) -> Any:  # noqa: B008
    media = Media(mid="m", type="audio", uri=str(uri), sha256=options.pop("sha256", None))
    return open_sound(media, where="here", rate=rate, limits=limits, **options)


def sine(count: int = 800, rate: int = RATE) -> Any:
    """440 Hz, half as loud as can be."""
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)


def pack(levels: Any, width: int) -> bytes:
    """The bytes of whole numbers, of which 0 is silence."""
    if width == 1:
        return bytes(int(level) + 128 for level in np.ravel(levels))
    return b"".join(int(level).to_bytes(width, "little", signed=True) for level in np.ravel(levels))


def wav(levels: Any, width: int = 2, *, rate: int = RATE) -> bytes:
    """A WAV file of whole numbers [samples] or [samples, channels]."""
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(np.shape(levels)[1] if np.ndim(levels) == 2 else 1)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(pack(levels, width))
    return buffer.getvalue()


def levels(waveform: Any, width: int) -> Any:
    return np.round(waveform * (2 ** (8 * width - 1) - 1)).astype(np.int64)


def chunk(name: bytes, content: bytes, declared: int | None = None) -> bytes:
    return name + struct.pack("<L", len(content) if declared is None else declared) + content


def claims(
    *, tag: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, data: bytes = bytes(800), before: bytes = b""
) -> bytes:
    """A WAV file whose header says what no writer would let it say."""
    each = channels * ((bits + 7) // 8)
    header = struct.pack("<HHLLHH", tag, channels, rate, rate * each % 2**32, each % 2**16, bits)
    return chunk(b"RIFF", b"WAVE" + before + chunk(b"fmt ", header) + chunk(b"data", data))


SHORT = wav(levels(sine(100), 2))
FLOATS = claims(tag=3, bits=32, data=sine().astype("<f4").tobytes())
