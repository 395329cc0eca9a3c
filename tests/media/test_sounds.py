"""Sounds read safely: samples of every width by known values, clips, another rate, damaged files of every kind."""

from __future__ import annotations

import base64
import hashlib
import random
import struct
import sys
import wave
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import png, put

from mmalign import ConfigError, Media, MediaError, MediaLimits, open_sound

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


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Lets this process have 2 GiB more than it has, where that can be told."""
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# -- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_every_width_gives_the_same_waveform(width: int, tmp_path: Path) -> None:
    samples = read(put(tmp_path, "a.wav", wav(levels(sine(), width), width)))
    assert samples.dtype == np.float32 and samples.shape == (800,)
    # The files scale by 2^(bits - 1) - 1 and round; what is read is divided by 2^(bits - 1).
    assert np.abs(samples - sine()).max() <= 2.0 ** (1 - 8 * width) + 2.0**-25


@pytest.mark.parametrize("width", WIDTHS)
def test_silence_is_zero_and_the_extremes_are_one(width: int, tmp_path: Path) -> None:
    top = 2 ** (8 * width - 1)
    samples = read(put(tmp_path, "a.wav", wav([0, -top, top - 1, top // 2, -1], width)))
    assert samples.tolist() == [0, -1, np.float32((top - 1) / top), 0.5, -1 / top]


def test_channels_are_averaged(tmp_path: Path) -> None:
    two = wav([[16384, 0], [16384, -16384], [-32768, -32768], [32767, 32767]])
    assert read(put(tmp_path, "a.wav", two)).tolist() == [0.25, 0, -1, 32767 / 32768]
    three = wav([[64, 32, 0], [-128, -64, 0]], 1)
    assert read(put(tmp_path, "b.wav", three)).tolist() == [0.25, -0.5]


def test_chunks_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    file = put(tmp_path, "a.wav", claims(data=pack([16384], 2), before=chunk(b"LIST", b"INFO") + chunk(b"junk", b"")))
    assert read(file).tolist() == [0.5]


# -- rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 11025, 5000])
def test_another_rate_keeps_a_sine_and_its_length(rate: int, tmp_path: Path) -> None:
    samples = read(put(tmp_path, "a.wav", wav(levels(sine(), 2))), rate)
    assert samples.dtype == np.float32 and len(samples) == int(np.ceil(800 * rate / RATE))
    inner = slice(len(samples) // 10, -len(samples) // 10)  # the filter reads zeros beyond the borders
    assert np.abs(samples - sine(len(samples), rate))[inner].max() < 0.005


def test_no_value_is_beyond_one_at_another_rate(tmp_path: Path) -> None:
    square = np.where(np.arange(800) % 40 < 20, 32767, -32768)
    samples = read(put(tmp_path, "a.wav", wav(square)), 16000)
    assert 0.95 < np.abs(samples).max() <= 1


def test_another_rate_needs_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    file = put(tmp_path, "a.wav", SHORT)
    assert len(read(file)) == 100
    with pytest.raises(ConfigError, match=r"here: a sound has 8000 samples a second, the model hears 16000; .*scipy"):
        read(file, 16000)


# -- clips ------------------------------------------------------------------------------------------------------------


def test_clips_are_in_seconds(tmp_path: Path) -> None:
    count = np.arange(44100) - 22050
    file = put(tmp_path, "a.wav", wav(count, rate=44100))

    def clip(**borders: float) -> Any:
        return (read(file, 44100, **borders) * 2**15).tolist()

    assert clip(start=0.25, end=0.75) == count[11025:33075].tolist()
    assert clip(start=0.25) == count[11025:].tolist()
    assert clip(end=0.25) == count[:11025].tolist()
    assert clip(start=0, end=1) == count.tolist()
    # As floats, 0.35 * 44100 is a little less than 15435, and 0.57 * 44100 less than 25137.
    assert clip(start=0.35, end=0.57) == count[15435:25137].tolist()


def test_a_clip_is_cut_before_its_rate_changes(tmp_path: Path) -> None:
    file = put(tmp_path, "a.wav", wav(levels(sine(1600), 2)))
    assert len(read(file, 16000, start=0.05, end=0.15)) == 1600
    inner = slice(100, -100)
    expected = sine(2400, 16000)[800:]
    assert np.abs(read(file, 16000, start=0.05, end=0.15) - expected)[inner].max() < 0.005


@pytest.mark.parametrize(
    ("borders", "told"),
    [
        ({"start": 5.0}, "no samples from 5 s to its end"),
        ({"start": 5.0, "end": 6.0}, "no samples from 5 s to 6 s"),
        ({"start": 0.005, "end": 0.0025}, "no samples from 0.005 s to 0.0025 s"),
        ({"end": 0.0}, "no samples from 0 s to 0 s"),
        ({"start": 1e308}, r"no samples from 1e\+308 s to its end"),
    ],
)
def test_a_clip_without_samples(borders: dict[str, float], told: str, tmp_path: Path) -> None:
    file = put(tmp_path, "a.wav", SHORT)
    with pytest.raises(MediaError, match=f"^here: {file}: {told}$"):
        read(file, **borders)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "data:audio/wav;base64," + base64.b64encode(SHORT).decode(),
        "data:audio/wav," + "".join(f"%{byte:02x}" for byte in SHORT),
    ],
    ids=["base64", "without base64"],
)
def test_data_uris(uri: str) -> None:
    assert (read(uri) * 2**15).tolist() == levels(sine(100), 2).tolist()


def test_a_long_data_uri_is_not_repeated_in_a_message() -> None:
    with pytest.raises(MediaError, match=r"here: data:audio/wav;base64,.*: no WAV file") as caught:
        read("data:audio/wav;base64," + base64.b64encode(b"no sound" * 500).decode())
    assert len(str(caught.value)) < 300


NO_WAV = r"no WAV file of integers: \w"  # and a reason
WRONG: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "the file is empty"),
    "random bytes": (random.Random(0).randbytes(1000), NO_WAV),
    "text": (b"this is a text\n", NO_WAV),
    "MP3 with tags": (b"ID3\x03" + bytes(6) + b"\xff\xfb\x90\x00" * 200, NO_WAV),
    "MP3 without tags": (b"\xff\xfb\x90\x00" * 200, NO_WAV),
    "Ogg": (b"OggS\x00\x02" + bytes(100), NO_WAV),
    "an image": (png(), NO_WAV),
    "RIFF of another kind": (chunk(b"RIFF", b"WEBP" + bytes(100)), NO_WAV),
    "floats": (FLOATS, NO_WAV),
    "A-law": (claims(tag=6, bits=8), NO_WAV),
    "MP3 in WAV": (claims(tag=85, bits=0), NO_WAV),
    "cut in its first word": (SHORT[:3], "no WAV file of integers: it ends early"),
    "cut in its format": (SHORT[:30], "no WAV file of integers: it ends early"),
    "cut before its samples": (SHORT[:36], NO_WAV),
    "no samples of 100": (SHORT[:44], "cut off: 0 of 100 samples"),
    "half a sample missing": (SHORT[:-1], "cut off: 99 of 100 samples"),
    "ten samples missing": (SHORT[:-20], "cut off: 90 of 100 samples"),
    "stereo, five samples missing": (wav(np.zeros((100, 2)))[:-20], "cut off: 95 of 100 samples"),
    "zero samples": (wav([]), "no samples from 0 s to its end"),
    "stereo, zero samples": (wav(np.zeros((0, 2))), "no samples from 0 s to its end"),
    "zero channels": (claims(channels=0), NO_WAV),
    "zero bits": (claims(bits=0), NO_WAV),
    "40 bits": (claims(bits=40), NO_WAV),
    "65535 bits": (claims(bits=65535, data=bytes(2**14)), NO_WAV),
    "samples before the format": (
        chunk(b"RIFF", b"WAVE" + chunk(b"data", bytes(8)) + chunk(b"fmt ", bytes(16))),
        NO_WAV,
    ),
    "a chunk longer than the file": (claims(before=chunk(b"LIST", b"", declared=2**32 - 2)), NO_WAV),
}


@pytest.mark.parametrize("injected", WRONG)
def test_a_wrong_file_is_one_message(injected: str, tmp_path: Path) -> None:
    content, told = WRONG[injected]
    file = put(tmp_path, "a.wav", content)
    for rate in (RATE, 16000):
        with pytest.raises(MediaError, match=told) as caught:
            read(file, rate)
        assert str(caught.value).startswith(f"here: {file}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("claimed", [0, 1, 2**24 - 3, 2**32 - 1])
def test_a_rate_that_no_sound_has(claimed: int, tmp_path: Path, little_memory: None) -> None:
    # To resample 1 MiB from 1 Hz would give 17 billion samples; from 2^24 - 3 Hz, it takes a filter of 2.7 GB.
    file = put(tmp_path, "a.wav", claims(rate=claimed, bits=8, data=bytes(2**20)))
    with pytest.raises(MediaError, match=rf"^here: {file}: .*samples a second"):
        read(file, 16000)


def test_a_missing_file(tmp_path: Path) -> None:
    put(tmp_path, "sound.wav", SHORT)
    with pytest.raises(MediaError, match=r"here: .*/soudn.wav: no such file; did you mean '.*/sound.wav'\?"):
        read(tmp_path / "soudn.wav")
    with pytest.raises(MediaError, match=f"here: {tmp_path}: a folder"):
        read(tmp_path)


def test_bytes_are_counted(tmp_path: Path) -> None:
    file = put(tmp_path, "a.wav", SHORT)
    for uri in (file, "data:audio/wav;base64," + base64.b64encode(SHORT).decode()):
        assert len(read(uri, limits=MediaLimits(size=len(SHORT)))) == 100
        with pytest.raises(MediaError, match=rf"here: .*: the file has more than .*{len(SHORT) - 1}"):
            read(uri, limits=MediaLimits(size=len(SHORT) - 1))


def test_what_the_record_says_is_compared(tmp_path: Path) -> None:
    file = put(tmp_path, "a.wav", SHORT)
    digest = hashlib.sha256(SHORT).hexdigest()
    assert len(read(file, sha256=digest)) == 100
    with pytest.raises(MediaError, match=f"here: {file}: another file than the record means"):
        read(file, sha256=digest[::-1])


def test_nothing_is_fetched_unless_it_is_allowed() -> None:
    with pytest.raises(MediaError, match=r"set data.allow_remote_media: true") as caught:
        read("https://me:secret@example.org/a.wav?key=secret")
    assert str(caught.value).startswith("here: https://example.org/a.wav: ") and "secret" not in str(caught.value)


# -- damaged bytes ----------------------------------------------------------------------------------------------------


def is_read(content: bytes, folder: Path) -> bool:
    """True if a sound comes out, False for the one error; anything else fails."""
    file = put(folder, "a.wav", content)
    try:
        samples = read(file, 16000)
    except MediaError as error:
        assert str(error).startswith(f"here: {file}: ") and "\n" not in str(error)
        return False
    assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples)
    assert np.isfinite(samples).all() and np.abs(samples).max() <= 1
    return True


def test_a_file_cut_at_any_byte_is_an_error(tmp_path: Path) -> None:
    assert is_read(SHORT, tmp_path)
    assert [length for length in range(len(SHORT)) if is_read(SHORT[:length], tmp_path)] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_damaged_bytes_give_a_sound_or_one_error(width: int, tmp_path: Path, little_memory: None) -> None:
    whole = wav(levels(np.stack([sine(16), -sine(16)], axis=1), width), width)
    chance = random.Random(width)
    wrong: dict[str, str] = {}
    sounds = 0
    for _ in range(75):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            # Half of them fall on the 44 bytes of the header.
            damaged[chance.randrange(chance.choice([44, len(damaged)]))] = chance.randrange(256)
        try:
            sounds += is_read(bytes(damaged), tmp_path)
        except Exception as error:  # noqa: BLE001
            wrong[damaged.hex()] = repr(error)
    assert wrong == {}
    assert 5 < sounds < 70
