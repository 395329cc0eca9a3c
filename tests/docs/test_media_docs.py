"""The table of docs/media.md is what comes out when such files are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from image_files import SIZE, animation, bomb, encode, noise, png, png_chunk, put, raw_png, raw_tiff, turned
from PIL import Image
from sound_files import SHORT, chunk, claims, encode_sound, extensible, levels, pack, sine, unfinished

from mmalign import Media, MediaError, open_image
from mmalign.media.images import read_header
from mmalign.media.sounds import decode_sound, read_sound_header

PAGE = Path(__file__).parents[2] / "docs" / "media.md"
HALF = len(png()) // 2
FLAC, OGG, MP3 = (encode_sound(sine(8000), kind) for kind in ("FLAC", "OGG", "MP3"))


def _flipped(content: bytes) -> bytes:
    return content[:60] + bytes([content[60] ^ 255]) + content[61:]


def _ink() -> bytes:
    return encode(Image.new("CMYK", SIZE, (255, 0, 0, 0)), "JPEG")


IMAGES: dict[str, bytes] = {
    "PNG": png(),
    "JPEG to be turned (EXIF)": turned(),
    "JPEG in CMYK": _ink(),
    "TIFF, 16 bits, WhiteIsZero": raw_tiff(16, 0, bytes(32), width=16),
    "TIFF, 32 bits": raw_tiff(32, 1, bytes(64), width=16, sign=3),
    "PNG, 4 bits, one grey transparent": raw_png((2, 1), 4, 0, b"\0\x05", png_chunk(b"tRNS", b"\0\5")),
    "PNG, 16 bits, one colour transparent": raw_png((1, 1), 16, 2, bytes(7), png_chunk(b"tRNS", bytes(6))),
    "GIF, animated": animation(),
    "PNG, cut at half": png()[:HALF],
    "PNG with a flipped byte": _flipped(png()),
    "JPEG, cut at half": encode(noise(), "JPEG")[:400],
    "PNG that claims 9000 x 9000": bomb(9000, 9000),
    "PNG that claims 60000 x 60000": bomb(),
    "text named .png": b"this is a text\n",
    "no bytes": b"",
}
SOUNDS: dict[str, bytes] = {
    "WAV": SHORT,
    "WAV, 24 bits in 32, extensible": extensible(levels(sine(100), 3) << 8, 4, valid=24),
    "WAV, 24 bits in 4 bytes, not extensible": claims(bits=24, block=4),
    "WAV written to a pipe": unfinished(pack(levels(sine(100), 2), 2), data=2**32 - 1, riff=2**32 - 1),
    "WAV of floats that are integers": claims(tag=3, bits=32, data=np.float32([0, 9000]).tobytes()),
    "WAV, ten samples missing": SHORT[:-20],
    "WAV without samples": claims(data=b""),
    "FLAC": FLAC,
    "FLAC, cut at half": FLAC[: len(FLAC) // 2],
    "OGG, cut at half": OGG[: len(OGG) // 2],
    "MP3": MP3,
    "MP3, cut at half": MP3[: len(MP3) // 2],
    "AIFF": chunk(b"FORM", bytes(100)),
    "M4A": bytes(4) + b"ftypM4A " + bytes(100),
    "text named .wav": b"this is a text\n",
}


def _say(look: Any, path: Path, kind: str) -> str:
    try:
        seen = look(Media(mid="m", type=kind, uri=str(path)), where="")  # type: ignore[arg-type]
    except MediaError as error:
        # What a library says of damage is its own, and may change with its version.
        told = re.sub(r"(damaged or cut off) [(].*", r"\1", str(error).removeprefix(f": {path}: "))
        return f"`{told}`"
    if isinstance(seen, tuple):
        return f"{len(seen[0])} samples"
    if kind == "audio":
        return "a length that is not known" if seen.samples is None else f"{seen.samples} samples"
    return f"{seen.width} x {seen.height}, {seen.mode}"


def render_table(folder: Path) -> str:
    rows = ["| injected | header | full |", "|---|---|---|"]
    for kind, files, looks in (
        ("image", IMAGES, (read_header, open_image)),
        ("audio", SOUNDS, (read_sound_header, decode_sound)),
    ):
        for name, content in files.items():
            header, full = (_say(look, put(folder, "a", content), kind) for look in looks)
            rows.append(f"| {name} | {header} | {'the same' if header == full else full} |")
    return "\n".join(rows)


def test_the_table_is_what_comes_out(tmp_path: Path) -> None:
    table = render_table(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    assert table in page, f"put this into docs/media.md:\n{table}"


def test_every_kind_that_is_read_is_listed() -> None:
    from mmalign.media.images import FORMATS
    from mmalign.media.sound_files import KINDS

    page = PAGE.read_text(encoding="utf-8").upper()
    assert all(kind in page for kind in (*FORMATS, *KINDS))
