"""Sounds of records, decoded by libsndfile. Whatever is wrong is one `MediaError`, as with `mmalign.media.images`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from math import gcd
from typing import TYPE_CHECKING, Any

from mmalign.errors import ConfigError, MediaError
from mmalign.media.limits import DEFAULT_LIMITS, MediaLimits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mmalign.data.record_rows import Media

    Samples = NDArray[np.float32]

_RATES = (4_000, 384_000)  # others are damage; to resample them may take any amount of memory
_CHANNELS = 64
_LOUDEST = 8.0  # floats above are integers by mistake; a little above 1 is what a loud recording decodes to
_BLOCK = 2**20  # samples over all channels that are decoded at a time
_UNKNOWN = 2**62  # frames of a FLAC file whose writer did not know


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound that a model produced; `generate` writes it as WAV.

    Attributes:
        samples: [samples] or [samples, channels], floats from -1 to 1, as a numpy array or a tensor.
        rate: samples a second.
    """

    samples: Any
    rate: int


@dataclass(frozen=True)
class SoundHeader:
    """What a file says of itself: its kind, channels, samples a second, and samples of a channel if it says so."""

    format: str
    channels: int
    rate: int
    samples: int | None


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
        MediaError: it is missing, no WAV, FLAC, OGG or MP3 file, damaged, cut off, too large or without samples; or it
            is on another machine and `limits` do not allow to fetch it.
        ConfigError: soundfile is not installed; or it has to be resampled, and scipy is not.
    """
    samples, own = decode_sound(media, where=where, limits=limits)
    with _naming(media, where):
        length = len(samples) / own
        first, last = (round(min(place, length) * own) for place in (start or 0.0, length if end is None else end))
        if first >= last:
            raise MediaError(f"no samples from {start or 0:g} s to {'its end' if end is None else f'{end:g} s'}")
    return _resample(samples[first:last], own, rate, where)


def decode_sound(media: Media, *, where: str, limits: MediaLimits = DEFAULT_LIMITS) -> tuple[Samples, int]:
    """Reads all of a sound at its own rate, which is returned, too; see `open_sound`."""
    with _naming(media, where), _open(media, limits) as (file, header):
        samples = _decode(file, header, limits)
        if not len(samples):
            raise MediaError("no samples from 0 s to its end")
        return samples, header.rate


def read_sound_header(media: Media, *, where: str, limits: MediaLimits = DEFAULT_LIMITS) -> SoundHeader:
    """Reads what a file says of itself without decoding it, and checks that; raises as `open_sound` does."""
    with _naming(media, where), _open(media, limits) as (_, header):
        if header.samples == 0:
            raise MediaError("no samples from 0 s to its end")
        return header


@contextmanager
def _naming(media: Media, where: str) -> Iterator[None]:
    from mmalign.media.fetching import show_uri

    try:
        yield
    except MediaError as error:
        raise MediaError(f"{where}: {show_uri(media.uri)}: {error}") from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{where}: a sound needs {error.name}; install it with pip install "mmalign[sounds]"'
        ) from None


@contextmanager
def _open(media: Media, limits: MediaLimits) -> Iterator[tuple[Any, SoundHeader]]:
    """Opens a sound and checks what it declares; makes one error of all that the decoder raises."""
    from mmalign.media.fetching import read_bytes
    from mmalign.media.sound_files import prepare_sound

    decoder = _define_decoder()
    kind, content = prepare_sound(read_bytes(media, limits))
    try:
        with decoder(BytesIO(content)) as file:
            frames = file.frames if 0 <= file.frames < _UNKNOWN else None
            header = SoundHeader(kind, file.channels, file.samplerate, frames)
            _check_header(header, limits)
            yield file, header
    # libsndfile's own error is a RuntimeError; a file in memory may fail as any other.
    except (RuntimeError, OSError, ValueError, TypeError, MemoryError) as error:
        told = " ".join(str(error).rpartition(": ")[2].split())
        # libsndfile takes what its MP3 decoder cannot begin with for a missing file; it is in memory.
        told = "" if told.startswith("File does not exist") else f": {told}"
        raise MediaError(f"damaged or cut off ({kind}{told})") from None


@cache
def _define_decoder() -> Any:
    """Returns a `SoundFile` that is read from its beginning to its end, without a seek.

    soundfile seeks after every read, which fails in a FLAC file whose writer did not know its length.
    """
    try:
        import soundfile
    except OSError:  # soundfile without the library that its wheel holds
        raise ModuleNotFoundError(name="libsndfile") from None

    class Forward(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return Forward


def _check_header(header: SoundHeader, limits: MediaLimits) -> None:
    if not _RATES[0] <= header.rate <= _RATES[1]:
        raise MediaError(f"{header.rate:,} samples a second; expected {_RATES[0]:,} to {_RATES[1]:,}")
    if not 1 <= header.channels <= _CHANNELS:
        raise MediaError(f"{header.channels:,} channels; expected 1 to {_CHANNELS}")
    _check_length((header.samples or 0) * header.channels, limits)


def _check_length(samples: int, limits: MediaLimits) -> None:
    if samples > limits.samples:
        raise MediaError(f"more samples over all channels than data.max_sound_samples, {limits.samples:,}")


def _decode(file: Any, header: SoundHeader, limits: MediaLimits) -> Samples:
    """Decodes block by block, so that only the mean over channels is kept."""
    import numpy as np

    blocks: list[Samples] = []
    total = 0
    while True:
        block = file.read(max(1, _BLOCK // header.channels), dtype="float32", always_2d=True)
        if not len(block):
            break
        total += len(block)
        _check_length(total * header.channels, limits)
        blocks.append(block.mean(axis=1))
    if header.samples is not None and total < header.samples:
        raise MediaError(f"cut off: {total} of {header.samples} samples")
    samples: Samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    peak = float(np.abs(samples).max(initial=0))
    if not peak <= _LOUDEST:  # also where it is not a number
        raise MediaError(f"samples up to {peak:g}; expected floats from -1 to 1")
    return samples.clip(-1, 1)


def _resample(samples: Samples, own: int, rate: int, where: str) -> Samples:
    if own == rate:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise ConfigError(
            f"{where}: a sound has {own} samples a second, the model hears {rate}; to resample it install scipy with "
            'pip install "mmalign[sounds]"'
        ) from None
    divisor = gcd(own, rate)
    resampled: Samples = resample_poly(samples, rate // divisor, own // divisor).astype(samples.dtype)
    return resampled.clip(-1, 1)  # the filter overshoots at steps
