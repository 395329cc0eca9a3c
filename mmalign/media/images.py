"""Images of records, read as if whoever made the file meant harm.

`open_image` is the one way from a `Media` row to pixels, `read_header` to what a file says of itself. A file is checked
before it is decoded: its kind, its bytes and its declared pixels, so that a small file cannot ask for much memory.
Whatever is wrong is one `MediaError`.
"""

from __future__ import annotations

import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from mmalign.errors import ConfigError, MediaError
from mmalign.media.limits import DEFAULT_LIMITS, LARGEST_PIXELS, MediaLimits

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmalign.data.record_rows import Media

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
"""What is read. Pillow knows more, some by running other programs."""

# What Pillow's decoders raise on damaged files.
_DAMAGED: tuple[type[Exception], ...] = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError)
_DAMAGED += (AttributeError, ArithmeticError, RuntimeError, MemoryError, struct.error, zlib.error)
_TURNED = (5, 6, 7, 8)  # values of EXIF orientation that swap width and height
_ORIENTATION = 0x0112
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Header:
    """What a file says of itself: `mode` is Pillow's; width and height are in pixels, as the image is shown.

    Attributes:
        several: True if there are further frames or pages, which nothing reads.
    """

    format: str
    mode: str
    width: int
    height: int
    several: bool = False


def open_image(media: Media, *, where: str, limits: MediaLimits = DEFAULT_LIMITS) -> Image:
    """Reads an image whole, turned as EXIF or XMP say; an animation gives its first frame, a TIFF file its first page.

    Args:
        where: the record, or the file and line, that the message of an error begins with.

    Returns:
        an image of mode L or RGB: transparency is laid over white, 16 bits are scaled to 8. Colour profiles are not
        applied.

    Raises:
        MediaError: it is missing, no image, damaged, cut off, too large, or not what `media` says; or it is on another
            machine and `limits` do not allow to fetch it.
        ConfigError: Pillow is not installed.
    """
    from mmalign.media.fetching import read_bytes
    from mmalign.media.pixels import normalise, read_storage

    with _naming(media, where), _strict_pillow():
        content = read_bytes(media, limits)
        with _open(BytesIO(content), pixels=True) as image:
            _check_pixels(image, limits)
            from PIL import ImageOps

            storage = read_storage(image)
            image.load()
            shown = ImageOps.exif_transpose(image)
            _check_claims(media, shown.size)
            return normalise(shown, storage)


def read_header(media: Media, *, where: str, limits: MediaLimits = DEFAULT_LIMITS) -> Header:
    """Reads what a file says of itself without decoding it, and checks that; raises as `open_image` does."""
    from mmalign.media.fetching import open_bytes
    from mmalign.media.pixels import check_mode, read_storage

    with _naming(media, where), _strict_pillow(), open_bytes(media, limits) as file:
        with _open(file, pixels=False) as image:
            _check_pixels(image, limits)
            size = _find_shown_size(image)
            _check_claims(media, size)
            read_storage(image)
            check_mode(image)
            return Header(str(image.format), image.mode, *size, several=_has_several(image))


def is_image(value: Any) -> bool:
    """Returns whether something is a PIL image, without importing Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _open(file: IO[bytes], *, pixels: bool) -> Image:
    """Opens an image; of a PNG file without `pixels` the header is all that can be read."""
    from PIL import Image, UnidentifiedImageError

    from mmalign.media.png_chunks import SIGNATURE, tidy_png

    start = file.read(16)
    file.seek(0)
    try:
        return Image.open(tidy_png(file, pixels=pixels) if start.startswith(SIGNATURE) else file, formats=FORMATS)
    except UnidentifiedImageError:
        if start.startswith(_TIFF):
            raise MediaError(
                "a TIFF file whose header is damaged, or whose kind of pixels is not read; save it as RGB or grey"
            ) from None
        known = f"no image of a known kind ({', '.join(FORMATS)}), or its header is damaged"
        raise MediaError(f"{known}; it begins with {_show(start)}") from None
    except Image.DecompressionBombError:
        raise MediaError(f"it declares more than {LARGEST_PIXELS:,} pixels (a decompression bomb?)") from None


def _check_pixels(image: Image, limits: MediaLimits) -> None:
    width, height = image.size
    if not width or not height:
        raise MediaError(f"it has no pixels: {width} x {height}")
    if width * height > limits.pixels:
        most = f"more than data.max_image_pixels, {limits.pixels:,}"
        raise MediaError(f"it declares {width} x {height} = {width * height:,} pixels, {most}")


def _find_shown_size(image: Image) -> tuple[int, int]:
    """Returns width and height after the turn that EXIF or XMP ask for, without decoding the image."""
    from PIL import Image

    if image.format == "TIFF":  # Pillow has turned its size already
        return image.size
    # The method of all images: that of PNG would decode the pixels to look behind them, where nothing is left.
    turned = Image.Image.getexif(image).get(_ORIENTATION) in _TURNED
    return (image.height, image.width) if turned else image.size


def _has_several(image: Image) -> bool:
    """Returns whether there are further frames or pages; further pictures in a JPEG file are previews."""
    if image.format == "MPO":
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except _DAMAGED:  # in what nothing reads
        return False


def _check_claims(media: Media, size: tuple[int, int]) -> None:
    for name, declared, real in zip(("width", "height"), (media.width, media.height), size, strict=True):
        if declared is not None and declared != real:
            raise MediaError(f"the record says {name} {declared}, the file {real}")


@contextmanager
def _naming(media: Media, where: str) -> Iterator[None]:
    """Says in every error whose image it is, and makes one error of all that decoders raise."""
    from mmalign.media.fetching import show_uri

    try:
        yield
    except MediaError as error:
        raise MediaError(f"{where}: {show_uri(media.uri)}: {error}") from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'{where}: an image needs {error.name}; install it with pip install "mmalign[images]"'
        ) from None
    except _DAMAGED as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise MediaError(f"{where}: {show_uri(media.uri)}: damaged or cut off ({told})") from None


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Some libraries tell Pillow to fill what is missing of a file with grey; here that is an error, the only one."""
    from PIL import ImageFile

    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        with warnings.catch_warnings():
            # What Pillow warns of is an error of ours, or no harm.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _show(start: bytes) -> str:
    return repr(start.decode("ascii", "replace").replace("\ufffd", "?"))
