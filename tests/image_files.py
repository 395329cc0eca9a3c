"""Image files for tests, good and bad, made with Pillow."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (16, 12)


def noise(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """An image of random pixels, always the same."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (size[1], size[0], bands) if bands > 1 else (size[1], size[0])
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def png(size: tuple[int, int] = SIZE) -> bytes:
    return encode(noise(size=size), "PNG")


def raw_png(
    size: tuple[int, int], bits: int, kind: int, rows: bytes, before: bytes = b"", behind: bytes = b""
) -> bytes:
    """A PNG of given rows, each behind its filter byte, with further chunks before and behind the pixels."""
    header = struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + pixels + behind + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def raw_tiff(bits: int, photometric: int, pixels: bytes, *, width: int, sign: int = 1) -> bytes:
    """A little-endian TIFF of one uncompressed row of grey."""
    tags = {
        256: width,
        257: 1,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: 1,
        279: len(pixels),
        339: sign,
    }
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHL", b"II", 42, 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def bomb(width: int = 60000, height: int = 60000) -> bytes:
    """A PNG of 0.1 kB whose header claims so many pixels."""
    return raw_png((width, height), 8, 2, b"\0" * 64)


def turned() -> bytes:
    """A JPEG 16 wide and 12 high that is to be shown turned by a quarter."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise(), "JPEG", exif=exif)


def animation() -> bytes:
    """A GIF of a red frame and a blue one."""
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def half_transparent(mode: str = "RGBA") -> bytes:
    """A PNG of black whose left half is transparent."""
    image = Image.new("RGBA", SIZE, (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, SIZE[0] // 2, SIZE[1]))
    return encode(image.convert(mode), "PNG")


def put(folder: Path, name: str, content: bytes) -> Path:
    """Writes a file and returns its path."""
    path = folder / name
    path.write_bytes(content)
    return path
