"""Images of records as pixels, and pixels as images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmalign import DataError, MediaLimits, Record, Response, open_image

if TYPE_CHECKING:
    from PIL.Image import Image


def find_image(record: Record, response: Response, limits: MediaLimits) -> Image:
    """Opens the one image of a response.

    Raises:
        DataError: the response has no image or several, or it cannot be read; the message names record and response.
    """
    where = f"record {record.id!r}, response {response.rid!r}"
    parts = [part for message in response.messages for part in message.content if part.type == "image"]
    if len(parts) != 1:
        raise DataError(f"{where}: expected one image part, got {len(parts)}")
    for media in record.media:
        if media.mid == parts[0].media:
            return open_image(media, where=where, limits=limits)
    raise DataError(f"{where}: the image {parts[0].media!r} is not among the record's media; it was never stored")


def read_pixels(
    record: Record, response: Response, limits: MediaLimits, *, size: tuple[int, int] | None, channels: int
) -> Tensor:
    """Reads the image of a response as pixels [C, H, W] in [-1, 1], float32.

    Args:
        size: (height, width); the image is scaled to cover it, and what stands out is cut off evenly. None: as it is.
        channels: 1 for grayscale, 3 for RGB.
    """
    return fit_pixels(find_image(record, response, limits), size=size, channels=channels)


def fit_pixels(image: Image, *, size: tuple[int, int] | None, channels: int) -> Tensor:
    """Turns an image into pixels [C, H, W] in [-1, 1]; see `read_pixels`."""
    from PIL import ImageOps
    from PIL.Image import Resampling

    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and (image.height, image.width) != tuple(size):
        image = ImageOps.fit(image, (size[1], size[0]), method=Resampling.BICUBIC)
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return values.reshape(image.height, image.width, channels).permute(2, 0, 1).float() / 127.5 - 1


def crop_corner(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Returns how much (top, left) `fit_pixels` cuts off, in pixels of the image once it is scaled to cover `size`.

    >>> crop_corner(100, 400, (50, 100))
    (0, 50)
    """
    scale = max(size[0] / height, size[1] / width)
    return round((height * scale - size[0]) / 2), round((width * scale - size[1]) / 2)


def build_image(pixels: Tensor) -> Image:
    """Makes an image of pixels [C, H, W], which are cut to [-1, 1]; C is 1 or 3."""
    from PIL import Image

    levels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array = levels.permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
