"""Image sizes of about the same number of pixels and different aspect ratios, so that little is cut off.

Source: SDXL, arXiv:2307.01952, section 2.3, and its list of sizes, which has some more.
"""

from __future__ import annotations

from math import log


def bucket_sizes(pixels: int, step: int, *, longest: float = 4.0) -> list[tuple[int, int]]:
    """Lists sizes (height, width) of at most `pixels` pixels, multiples of `step`, each as large as that allows.

    Args:
        longest: highest aspect ratio, of about the longer to the shorter side.

    >>> bucket_sizes(256 * 256, 64, longest=2.0)
    [(128, 448), (128, 512), (192, 320), (256, 256), (320, 192), (448, 128), (512, 128)]
    """
    sizes = set()
    for long in range(step, pixels // step + 1, step):
        short = pixels // long // step * step
        if short <= long and long * long <= longest * pixels:
            sizes |= {(short, long), (long, short)}
    return sorted(sizes)


def nearest_bucket(height: int, width: int, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """Returns the size whose aspect ratio is nearest to that of an image, as a factor; the larger one of equals."""
    wanted = log(height / width)
    return min(sizes, key=lambda size: (abs(log(size[0] / size[1]) - wanted), -size[0] * size[1]))
