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
        start: the clip that is wanted, in seconds; `end` likewise; default all of it.

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
        first, last = int((start or 0) * own), len(samples) if end is None else int(end * own)
        if not len(samples[first:last]):
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
    except (wave.Error, EOFError) as error:
        raise MediaError(f"no WAV file of integers: {error or 'it ends early'}") from None
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
    samples: Samples = (values / 2.0 ** (8 * width - 1)).astype(np.float32)
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
    return resampled
