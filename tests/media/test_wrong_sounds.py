"""Sounds read safely: missing, wrong and damaged files are one message each."""

from __future__ import annotations

import base64
import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from image_files import png, put
from sound_files import RATE, SHORT, WIDTHS, chunk, claims, encode_sound, levels, read, sine, wav

from mmalign import MediaError, MediaLimits

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
    with pytest.raises(MediaError, match=r"here: data:audio/wav;base64,.*: no sound of a known kind") as caught:
        read("data:audio/wav;base64," + base64.b64encode(b"no sound" * 500).decode())
    assert len(str(caught.value)) < 300


UNKNOWN = r"no sound of a known kind \(WAV, FLAC, OGG, MP3\); it begins with"
DAMAGED = r"damaged( or cut off)? \(\w"  # and a reason
CUT = "cut off: its last page is not there"
FLAC, OGG, OPUS, MP3 = (encode_sound(sine(8000), *kind) for kind in (("FLAC",), ("OGG",), ("OGG", "OPUS"), ("MP3",)))
WRONG: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "the file is empty"),
    "random bytes": (random.Random(0).randbytes(1000), UNKNOWN),
    "text": (b"this is a text\n", UNKNOWN),
    "an image": (png(), UNKNOWN),
    "RIFF of another kind": (chunk(b"RIFF", b"WEBP" + bytes(100)), UNKNOWN),
    "MP3 that holds none": (b"ID3\x03" + bytes(6) + b"no sound" * 200, DAMAGED),
    "Ogg that holds none": (b"OggS\x00\x02" + bytes(100), CUT),
    "AAC": (b"\xff\xf1" + bytes(100), "AAC is not read; convert it to one of WAV, FLAC, OGG, MP3"),
    "M4A": (bytes(4) + b"ftypM4A " + bytes(100), "MP4 or M4A is not read; convert it to one of WAV"),
    "AIFF": (b"FORM" + bytes(100), "AIFF is not read"),
    "a tag that nobody knows": (claims(tag=12345), DAMAGED),
    "floats that are integers": (
        claims(tag=3, bits=32, data=(32767 * sine()).astype("<f4").tobytes()),
        "samples up to 1638.*; expected floats from -1 to 1",
    ),
    "a float that is no number": (claims(tag=3, bits=32, data=np.float32([0, np.nan]).tobytes()), "samples up to nan"),
    "an infinite float": (claims(tag=3, bits=32, data=np.float32([0, -np.inf]).tobytes()), "samples up to inf"),
    "cut in its first word": (SHORT[:3], UNKNOWN),
    "cut in its format": (SHORT[:30], r"damaged or cut off \(its chunk 'fmt ' ends behind the file\)"),
    "cut before its samples": (SHORT[:36], r"damaged or cut off \(a WAV file without samples\)"),
    "no samples of 100": (SHORT[:44], "cut off: 0 of 100 samples"),
    "half a sample missing": (SHORT[:-1], "cut off: 99 of 100 samples"),
    "ten samples missing": (SHORT[:-20], "cut off: 90 of 100 samples"),
    "stereo, five samples missing": (wav(np.zeros((100, 2)))[:-20], "cut off: 95 of 100 samples"),
    "zero samples": (wav([]), "no samples from 0 s to its end"),
    "stereo, zero samples": (wav(np.zeros((0, 2))), "no samples from 0 s to its end"),
    "zero channels": (claims(channels=0), DAMAGED),
    "zero bits": (claims(bits=0), DAMAGED),
    "40 bits": (claims(bits=40), DAMAGED),
    "65535 bits": (claims(bits=65535, data=bytes(2**14)), DAMAGED),
    "65 channels": (claims(channels=65, data=bytes(2**14)), "65 channels; expected 1 to 64"),
    "24 bits in 4 bytes": (
        claims(bits=24, block=4, data=bytes(800)),
        "24 bits a sample, 1 to a frame of 4 bytes: where the bits lie .* save it with 16, 24 or 32 bits",
    ),
    "samples before the format": (
        chunk(b"RIFF", b"WAVE" + chunk(b"data", bytes(8)) + chunk(b"fmt ", bytes(16))),
        "a WAV file without format",
    ),
    "a chunk longer than the file": (claims(before=chunk(b"LIST", b"", declared=2**32 - 2)), "'LIST' ends behind"),
    "half of a FLAC file": (FLAC[: len(FLAC) // 2], DAMAGED),
    "a wrong byte in a FLAC file": (FLAC[:-99] + bytes([FLAC[-99] ^ 85]) + FLAC[-98:], DAMAGED),
    "half of a Vorbis file": (OGG[: len(OGG) // 2], CUT),
    "an Opus file without its last bytes": (OPUS[:-5], CUT),
    "half of an MP3 file": (MP3[: len(MP3) // 2], r"cut off: \d+ of 8000 samples"),
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
    with pytest.raises(MediaError, match=rf"^here: {file}: .*(samples a second|damaged)"):
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


def test_samples_are_counted_before_and_while_they_are_decoded(tmp_path: Path) -> None:
    """A FLAC file of silence is a hundredth of what it decodes to; one of an unknown length does not declare it."""
    silence = encode_sound(np.zeros((40_000, 2)), "FLAC")
    assert len(silence) < 1000
    unknown = bytearray(silence)
    unknown[21] &= 0xF0  # the 36 bits of the number of samples, from the middle of this byte
    unknown[22:26] = bytes(4)
    for content in (silence, bytes(unknown)):
        file = put(tmp_path, "a.flac", content)
        assert len(read(file, limits=MediaLimits(samples=80_000))) == 40_000
        with pytest.raises(MediaError, match=r"more samples over all channels than data.max_sound_samples, 79,999"):
            read(file, limits=MediaLimits(samples=79_999))


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
