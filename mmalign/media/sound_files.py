"""What kind of sound a file holds, and whether all of it is there: what decoders do not check, or not alike.

A decoder gives what is left of a file that is cut off, without a word. WAV and Ogg say where they end.
"""

from __future__ import annotations

import struct

from mmalign.errors import MediaError

KINDS = ("WAV", "FLAC", "OGG", "MP3")
"""What is read: WAV of integers, floats, A-law, mu-law or ADPCM; OGG of Vorbis, Opus or FLAC."""

_UNREAD = {
    b"FORM": "AIFF",
    b"RIFX": "a big-endian WAV",
    b"caff": "CAF",
    b".snd": "AU",
    b"wvpk": "WavPack",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"0&\xb2u": "WMA",
    b"#!AM": "AMR",
}
_PLACEHOLDER = 2**30  # bytes; from here on a length means that the program did not know it, as when it writes to a pipe
_PLAIN = (1, 3, 6, 7)  # integers, floats, A-law, mu-law: every frame has as many bytes
_EXTENSIBLE = 0xFFFE
_LAST_PAGE = 4  # flag of an Ogg page


def prepare_sound(content: bytes) -> tuple[str, bytes]:
    """Returns the kind of a sound file and the bytes that a decoder is given.

    Raises:
        MediaError: another kind of file, one that is cut off, or a WAV file that may be read in two ways; the message
            lacks the place.
    """
    if content[:4] in (b"RIFF", b"RF64") and content[8:12] == b"WAVE":
        return "WAV", _prepare_wave(content)
    if content.startswith(b"fLaC"):
        return "FLAC", content
    if content.startswith(b"OggS"):
        _check_last_page(content)
        return "OGG", content
    if content.startswith(b"ID3") or _is_mpeg(content):
        return "MP3", content
    name = "MP4 or M4A" if content[4:8] == b"ftyp" else "AAC" if _is_aac(content) else _UNREAD.get(content[:4])
    if name is not None:
        raise MediaError(f"{name} is not read; convert it to one of {', '.join(KINDS)}")
    start = repr(content[:16].decode("ascii", "replace").replace("\ufffd", "?"))
    raise MediaError(f"no sound of a known kind ({', '.join(KINDS)}); it begins with {start}")


def _is_mpeg(content: bytes) -> bool:
    return len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0 and content[1] & 0x06 != 0


def _is_aac(content: bytes) -> bool:
    return len(content) > 1 and content[0] == 0xFF and content[1] & 0xF6 == 0xF0


def _check_last_page(content: bytes) -> None:
    """Checks that the last page of an Ogg file is whole, and marked as the last."""
    page = content[content.rfind(b"OggS") :]
    whole = len(page) > 26 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    if not whole or not page[5] & _LAST_PAGE:
        raise MediaError("cut off: its last page is not there")


# -- WAV --------------------------------------------------------------------------------------------------------------


def _prepare_wave(content: bytes) -> bytes:
    """Returns a WAV file of the format and the samples alone, with their true length."""
    chunks = _find_chunks(content)
    if b"fmt " not in chunks or b"data" not in chunks:
        missing = "format" if b"fmt " not in chunks else "samples"
        raise MediaError(f"damaged or cut off (a WAV file without {missing})")
    start, size = chunks[b"fmt "]
    header = content[start : start + size]
    if len(header) < 16:
        raise MediaError("damaged or cut off (the format of a WAV file needs 16 bytes)")
    tag, channels, _, _, block, bits = struct.unpack_from("<HHLLHH", header)
    if tag == _EXTENSIBLE and len(header) >= 26:
        (tag,) = struct.unpack_from("<H", header, 24)
    _check_layout(tag, channels, block, bits)
    start, declared = chunks[b"data"]
    data = content[start : start + _find_length(content, chunks, start, declared, block if tag in _PLAIN else 1)]
    body = b"WAVE" + _chunk(b"fmt ", header) + _chunk(b"data", data)
    return _chunk(b"RIFF", body)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<L", len(body)) + body + b"\0" * (len(body) % 2)


def _find_chunks(content: bytes) -> dict[bytes, tuple[int, int]]:
    """Finds where the content of every chunk up to the samples begins, and how long it is said to be."""
    found: dict[bytes, tuple[int, int]] = {}
    place = 12
    while place + 8 <= len(content) and b"data" not in found:
        name, size = struct.unpack_from("<4sL", content, place)
        found[name] = (place + 8, size)
        place += 8 + size + size % 2
        if name != b"data" and place > len(content) + 1:
            raise MediaError(f"damaged or cut off (its chunk {name.decode('ascii', 'replace')!r} ends behind the file)")
    return found


def _check_layout(tag: int, channels: int, block: int, bits: int) -> None:
    """Refuses samples whose place in their bytes is not known, such as 24 bits in 4 bytes."""
    if tag not in _PLAIN:
        return
    if not channels or not bits:
        raise MediaError(f"damaged (a WAV file of {channels} channels with {bits} bits a sample)")
    if block != channels * ((bits + 7) // 8):
        raise MediaError(
            f"a WAV file of {bits} bits a sample, {channels} to a frame of {block} bytes: where the bits lie in their "
            "bytes is not said; save it with 16, 24 or 32 bits"
        )


def _find_length(content: bytes, chunks: dict[bytes, tuple[int, int]], start: int, declared: int, unit: int) -> int:
    """Returns how many bytes of samples there are; a length that the writer did not know reaches to the end."""
    there = len(content) - start
    (whole,) = struct.unpack_from("<L", content, 4)
    if b"ds64" in chunks and chunks[b"ds64"][1] >= 16 and declared == 2**32 - 1:
        (declared,) = struct.unpack_from("<Q", content, chunks[b"ds64"][0] + 8)
    unfinished = declared == 0 and (whole + 8 <= start or whole >= _PLACEHOLDER)
    if declared >= _PLACEHOLDER or unfinished:
        return there
    if there < declared // unit * unit:
        raise MediaError(f"cut off: {there // unit} of {declared // unit} {'bytes' if unit == 1 else 'samples'}")
    return declared
