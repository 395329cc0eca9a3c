"""Every mode that Pillow knows, as L or RGB with 8 bits a channel.

What a file says of its pixels beside their mode is gone once Pillow has decoded it: `read_storage` comes before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDE = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La")
_RAW_BITS = {"L;2": 2, "L;4": 4, "I;12": 12}
"""How many bits of a pixel are stored, by Pillow's raw mode, where its own mode has more."""
_PHOTOMETRIC = 262  # the TIFF tag PhotometricInterpretation; 0 is WhiteIsZero


@dataclass(frozen=True)
class Storage:
    """How the pixels of a file are stored.

    Attributes:
        bits: of a grey pixel, where Pillow's mode has more; None where they are as many.
        white_is_zero: the least value is white.
    """

    bits: int | None = None
    white_is_zero: bool = False


def read_storage(image: Image) -> Storage:
    """Reads how pixels are stored, from an image that is not decoded yet.

    Raises:
        MediaError: a colour of 16 bits a channel is transparent, which Pillow can't tell from its neighbours; the
            message lacks the place.
    """
    raw = _find_raw_mode(image)
    if raw == "RGB;16B" and "transparency" in image.info:
        raise MediaError("a transparent colour of 16 bits a channel; save it with 8 bits, or with an alpha channel")
    tags: Any = getattr(image, "tag_v2", {})
    # Pillow turns 8 bits and fewer around itself.
    return Storage(_RAW_BITS.get(raw), image.mode in _WIDE and tags.get(_PHOTOMETRIC) == 0)


def normalise(image: Image, storage: Storage = Storage()) -> Image:
    """Returns the image as L, where it has no colour, or RGB.

    Transparency is laid over white. 16 bits are scaled to 8.

    Raises:
        MediaError: pixels of 32 bits or with a sign, whose white is not known; the message lacks the place.
    """
    check_mode(image)
    if image.mode in _WIDE:
        return _narrow(image, storage)
    if image.mode == "LAB":
        return _convert_lab(image)
    target = "L" if image.mode in _GREY else "RGB"
    if image.has_transparency_data:
        if storage.bits is not None:  # Pillow scales the pixels, but not the one that is transparent
            image.info["transparency"] = image.info["transparency"] * 255 // (2**storage.bits - 1)
        image = _lay_over_white(image)
    return image.convert(target) if image.mode != target else image.copy()


def check_mode(image: Image) -> None:
    """Raises MediaError, which lacks the place, where it is not known which value of a pixel is white."""
    if image.mode in ("I", "F"):
        bits = f"32 bits a pixel, or 16 with a sign (mode {image.mode})"
        raise MediaError(f"{bits}, whose white is not known; save it with 8 or 16 bits")


def _find_raw_mode(image: Image) -> str:
    """Returns the raw mode of the first tile, or an empty string."""
    tiles: Any = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _narrow(image: Image, storage: Storage) -> Image:
    """Scales 16 bits, or as many as are stored, to 8: white is the largest value, or 0 where it is said to be."""
    from PIL import Image as images

    values = np.asarray(image).astype(np.uint32)
    largest = 2 ** (storage.bits or 16) - 1
    levels = (np.minimum(values, largest) * 255 + largest // 2) // largest
    levels = 255 - levels if storage.white_is_zero else levels
    transparent = image.info.get("transparency")
    levels = levels if transparent is None else np.where(values == transparent, 255, levels)
    return images.fromarray(levels.astype(np.uint8))


def _convert_lab(image: Image) -> Image:
    """Turns CIELAB into sRGB, of which Pillow's own conversion knows nothing."""
    from PIL import ImageCms

    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted: Any = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    return converted  # type: ignore[no-any-return]


def _lay_over_white(image: Image) -> Image:
    from PIL import Image as images

    layer = image.convert("RGBA")
    return images.alpha_composite(images.new("RGBA", layer.size, "white"), layer)
