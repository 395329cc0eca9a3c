"""Sounds of records: uncompressed WAV files, read as `mmalign.media.images` reads images. Else: one `MediaError`."""

from __future__ import annotations

import wave
from io import BytesIO
from math import gcd
from typing import TYPE_CHECKING, Any

from mmalign.errors import ConfigError, MediaError
from mmalign.media.images import DEFAULT_LIMITS, MediaLimits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmalign.data.record_rows import Media

    Samples = NDArray[np.float32]

_WIDEST = 4  # bytes
_RATES = (4_000, 384_000)  # others are damage; to resample them may take any amount of memory


def open_sound(
    media: Media,
    *,
    where: str,
    rate: int,
    start: float | None = None,
    end: float | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Samples:
    """Reads a sound: its channels are averaged, and it is resampled if its rate is another one.

    Args:
        where: the record, or the file and line, that the message of an error begins with.
        rate: samples a second of what is returned.
        start: the clip that is wanted, in seconds; `end` likewise; default all of it. A clip ends with its sound.

    Returns:
        [samples], float32 from -1 to 1.

    Raises:
        MediaError: it is missing, no WAV file of integers, cut off, too large or without samples; or it is on another
            machine and `limits` do not allow to fetch it.
        ConfigError: it has to be resampled, and scipy is not installed.
    """
    from mmalign.media.fetching import read_bytes, show_uri

    try:
        samples, own = _read_wave(read_bytes(media, limits))
        length = len(samples) / own
        first, last = (round(min(place, length) * own) for place in (start or 0.0, length if end is None else end))
        if first >= last:
            raise MediaError(f"no samples from {start or 0:g} s to {'its end' if end is None else f'{end:g} s'}")
    except MediaError as error:
        raise MediaError(f"{where}: {show_uri(media.uri)}: {error}") from None
    return _resample(samples[first:last], own, rate, where)


def _read_wave(content: bytes) -> tuple[Samples, int]:
    """Returns samples, mean over channels, and their number a second."""
    try:
        with wave.open(BytesIO(content)) as file:
            width, channels, rate, declared = (
                file.getsampwidth(),
                file.getnchannels(),
                file.getframerate(),
                file.getnframes(),
            )
            frames = file.readframes(declared)
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError: a chunk goes beyond its file
        raise MediaError(f"no WAV file of integers: {str(error) or 'it ends early'}") from None
    if width > _WIDEST:
        raise MediaError(f"no WAV file of integers: {8 * width} bits")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise MediaError(f"{rate:,} samples a second; expected {_RATES[0]:,} to {_RATES[1]:,}")
    if len(frames) < declared * width * channels:
        raise MediaError(f"cut off: {len(frames) // (width * channels)} of {declared} samples")
    return _to_floats(frames, width).reshape(-1, channels).mean(axis=1), rate


def _to_floats(frames: bytes, width: int) -> Samples:
    import numpy as np

    if width == 1:  # the only unsigned one
        values: Any = np.frombuffer(frames, np.uint8).astype(np.int16) - 128
    elif width == 3:
        values = np.zeros((len(frames) // 3, 4), np.uint8)
        values[:, 1:] = np.frombuffer(frames, np.uint8).reshape(-1, 3)
        values = values.view("<i4").ravel() >> 8
    else:
        values = np.frombuffer(frames, f"<i{width}")
    samples: Samples = values.astype(np.float32) / np.float32(2 ** (8 * width - 1))
    return samples


def _resample(samples: Samples, own: int, rate: int, where: str) -> Samples:
    if own == rate:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise ConfigError(
            f"{where}: a sound has {own} samples a second, the model hears {rate}; to resample it install scipy with "
            'pip install "mmalign[vision_language]"'
        ) from None
    divisor = gcd(own, rate)
    resampled: Samples = resample_poly(samples, rate // divisor, own // divisor).astype(samples.dtype)
    return resampled.clip(-1, 1)  # the filter overshoots at steps
