"""Sounds read safely: missing, wrong and damaged files are one message each."""

from __future__ import annotations

import base64
import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_files import png, put
from sound_files import FLOATS, RATE, SHORT, WIDTHS, chunk, claims, levels, read, sine, wav

from mmalign import MediaError, MediaLimits


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
