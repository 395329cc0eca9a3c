"""Every mode that Pillow knows, as L or RGB with 8 bits a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmalign.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image

_WIDE = ("I;16", "I;16L", "I;16B", "I;16N")
_GREY = ("1", "L", "LA", "La")


def normalise(image: Image) -> Image:
    """Returns the image as L, where it has no colour, or RGB.

    Transparency is laid over white. 16 bits are scaled to 8.

    Raises:
        MediaError: pixels of 32 bits, whose white is not known; the message lacks the place.
    """
    if image.mode in _WIDE:
        return _narrow(image)
    if image.mode in ("I", "F"):
        raise MediaError(f"32 bits a pixel (mode {image.mode}), whose white is not known; save it with 8 or 16 bits")
    target = "L" if image.mode in _GREY else "RGB"
    if image.has_transparency_data:
        image = _lay_over_white(image)
    return image.convert(target) if image.mode != target else image.copy()


def _narrow(image: Image) -> Image:
    from PIL import Image as images

    values = np.asarray(image).astype(np.uint32)
    return images.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _lay_over_white(image: Image) -> Image:
    from PIL import Image as images

    layer = image.convert("RGBA")
    return images.alpha_composite(images.new("RGBA", layer.size, "white"), layer)
