"""What image rewards read of a sample: an RGB image; a sample without one gets an exception in place of a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

ScoreImages = Callable[[list[Sample], "list[Image]"], Sequence[Any]]

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N", "I")
# What Pillow's decoders raise where a file ends too early or makes no sense.
_UNREADABLE = (TypeError, ValueError, OSError, SyntaxError, EOFError)


def score_images(samples: Sequence[Sample], score: ScoreImages) -> list[Any]:
    """Scores those samples whose output is a readable image.

    Args:
        score: gives one score, or an exception, for each of the samples and RGB images that it is called with; not
            called if there is no image.

    Returns:
        for every sample its score, or the exception that says why it has none.
    """
    outcomes: list[Any] = [_try_read(sample.output) for sample in samples]
    places = [place for place, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
    if places:
        scores = score([samples[place] for place in places], [outcomes[place] for place in places])
        for place, one in zip(places, scores, strict=True):
            outcomes[place] = one
    return outcomes


def _try_read(output: Any) -> Image | Exception:
    try:
        return read_image(output)
    except _UNREADABLE as error:
        return error


def read_image(output: Any) -> Image:
    """Converts a decoded output to an RGB image of 8 bits a channel.

    What is transparent is laid over white. Greys of 16 bits are rounded to 8; mode `I` is read as 16 bits, which is how
    Pillow opens some PNG files.

    Raises:
        TypeError: it is no PIL image.
        ValueError: it has no pixels, its mode has no RGB form, or a value of mode `I` lies outside [0, 65535].
        OSError: its file cannot be read to the end.
    """
    from PIL import Image

    if not isinstance(output, Image.Image):
        raise TypeError(f"this reward reads images, but the response decodes to {type(output).__name__}")
    if 0 in output.size:
        raise ValueError(f"the image has no pixels: {output.width} x {output.height}")
    if output.mode == "F":
        raise ValueError("an image of mode F has no known range of values; decode to 8 or 16 bits")
    if output.mode in _SIXTEEN_BITS:
        return _narrow(output).convert("RGB")
    if output.has_transparency_data:
        layer = output.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return output.convert("RGB")


def _narrow(image: Image) -> Image:
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"an image of mode {image.mode} has values outside [0, 65535]")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
