"""Sound files for tests, also such as no writer would make, and how they are read."""

from __future__ import annotations

import struct
import wave
from io import BytesIO
from typing import Any

import numpy as np
import soundfile

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
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    block: int | None = None,
    data: bytes = bytes(800),
    before: bytes = b"",
) -> bytes:
    """A WAV file whose header says what no writer would let it say."""
    each = channels * ((bits + 7) // 8) if block is None else block
    header = struct.pack("<HHLLHH", tag, channels, rate, rate * each % 2**32, each % 2**16, bits)
    return chunk(b"RIFF", b"WAVE" + before + chunk(b"fmt ", header) + chunk(b"data", data))


def extensible(levels_: Any, width: int, *, valid: int | None = None, sub_format: int = 1, rate: int = RATE) -> bytes:
    """A WAV file behind a WAVE_FORMAT_EXTENSIBLE header, whose samples use `valid` bits, from the highest down."""
    channels = np.shape(levels_)[1] if np.ndim(levels_) == 2 else 1
    each = channels * width
    header = struct.pack("<HHLLHH", 0xFFFE, channels, rate, rate * each, each, 8 * width)
    header += struct.pack("<HHLH", 22, valid or 8 * width, 0, sub_format) + bytes.fromhex(
        "000000001000800000aa00389b71"
    )
    return chunk(b"RIFF", b"WAVE" + chunk(b"fmt ", header) + chunk(b"data", pack(levels_, width)))


def unfinished(samples: bytes, *, data: int, riff: int) -> bytes:
    """A WAV file of 16 bits whose writer never knew its length, and wrote these instead."""
    header = struct.pack("<HHLLHH", 1, 1, RATE, 2 * RATE, 2, 16)
    return chunk(b"RIFF", b"WAVE" + chunk(b"fmt ", header) + chunk(b"data", samples, data), riff)


def encode_sound(waveform: Any, kind: str, subtype: str | None = None, *, rate: int = RATE) -> bytes:
    """The bytes of a sound file that libsndfile writes."""
    buffer = BytesIO()
    soundfile.write(buffer, waveform, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


SHORT = wav(levels(sine(100), 2))
