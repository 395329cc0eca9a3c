"""Sounds read by known values: samples of every width and kind, other rates, clips."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import put
from sound_files import (
    RATE,
    SHORT,
    WIDTHS,
    chunk,
    claims,
    encode_sound,
    extensible,
    levels,
    pack,
    read,
    sine,
    unfinished,
    wav,
)

import mmalign
from mmalign import ConfigError, MediaError, Record
from mmalign.media.checks import check_media

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


@pytest.mark.parametrize("width", WIDTHS)
def test_an_extensible_header_changes_nothing(width: int, tmp_path: Path) -> None:
    samples = levels(np.stack([sine(), sine() / 2], axis=1), width)
    plain = read(put(tmp_path, "a.wav", wav(samples, width)))
    assert read(put(tmp_path, "b.wav", extensible(samples, width))).tolist() == plain.tolist()


def test_24_bits_in_the_upper_bytes_of_32(tmp_path: Path) -> None:
    file = put(tmp_path, "a.wav", extensible(levels(sine(), 3) << 8, 4, valid=24))
    assert np.abs(read(file) - sine()).max() < 2.0**-22


@pytest.mark.parametrize(
    ("data", "riff"),
    [
        (2**32 - 1, 2**32 - 1),
        (2_000_000_000, 2_000_000_036),
        (0x7FFFF000, 0x7FFFF024),
        (0, 0),
        (0, 36),
        (0, 2**32 - 1),
    ],
    ids=["ffmpeg", "two billion", "sox", "zeros", "a header that was never completed", "half known"],
)
def test_a_length_that_the_writer_did_not_know_reaches_to_the_end(data: int, riff: int, tmp_path: Path) -> None:
    file = put(tmp_path, "a.wav", unfinished(pack(levels(sine(400), 2), 2), data=data, riff=riff))
    assert len(read(file)) == 400 and np.abs(read(file) - sine(400)).max() < 1e-4


@pytest.mark.parametrize(
    ("kind", "subtype", "closeness"),
    [
        ("WAV", "FLOAT", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("WAV", "ALAW", 0.02),
        ("WAV", "ULAW", 0.02),
        ("WAV", "MS_ADPCM", 0.02),
        ("RF64", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.3),
        ("MP3", None, 0.2),
    ],
)
def test_other_kinds_hold_the_same_waveform(kind: str, subtype: str | None, closeness: float, tmp_path: Path) -> None:
    """Stereo of a sine and its half: the mean is three quarters of it. Lossy kinds are off most where it begins."""
    two = np.stack([sine(4000), sine(4000) / 2], axis=1)
    samples = read(put(tmp_path, "a", encode_sound(two, kind, subtype)))
    assert 4000 <= len(samples) < 4400 and samples.dtype == np.float32
    error = np.abs(samples[:4000] - 0.75 * sine(4000))
    assert error.max() < closeness and error[500:3500].mean() < min(closeness, 0.02)


def test_a_loud_float_is_cut_to_one(tmp_path: Path) -> None:
    assert read(put(tmp_path, "a.wav", encode_sound(np.array([0.5, 1.5, -2.0]), "WAV", "FLOAT"))).tolist() == [
        0.5,
        1,
        -1,
    ]


def test_sounds_need_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mmalign.media.sounds._define_decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(
        ConfigError, match=r'here: a sound needs soundfile; install it with pip install "mmalign\[sounds\]"'
    ):
        read(put(tmp_path, "a.wav", SHORT))


@pytest.mark.parametrize("level", ["header", "full"])
def test_data_with_a_sound_are_checked(level: Any, tmp_path: Path) -> None:
    """A header tells what a WAV file is cut off by, too; a FLAC file has to be decoded for it."""

    def check(content: bytes) -> None:
        media = {"mid": "a", "type": "audio", "uri": str(put(tmp_path, "a", content))}
        part = {"type": "audio", "media": "a"}
        record = {"id": "q", "schema": "mmalign/1", "prompt": [{"role": "user", "content": [part]}], "media": [media]}
        check_media(Record.from_dict(record), level=level)

    flac = encode_sound(sine(), "FLAC")
    check(SHORT)
    check(flac)
    with pytest.raises(MediaError, match=r"^media\[0\].uri: .*cut off: 99 of 100 samples"):
        check(SHORT[:-2])
    if level == "full":
        with pytest.raises(MediaError, match=r"^media\[0\].uri: .*damaged or cut off \(FLAC"):
            check(flac[:-100])


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
