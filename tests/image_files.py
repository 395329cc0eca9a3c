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


def bomb(width: int = 60000, height: int = 60000) -> bytes:
    """A PNG of 0.1 kB whose header claims so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    )


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
