"""The 36 natural scene statistics of BRISQUE: how neighbouring contrasts of an image are distributed, at two scales.

Read `compute_features` first. Where the paper leaves a choice, it is that of OpenCV: borders repeat the
outermost pixel, half size is by bicubic weights (a = -0.75) without low-pass filter, exponents are found on a grid of
0.001 in [0.2, 10).

Source: Mittal, Moorthy and Bovik, No-Reference Image Quality Assessment in the Spatial Domain (IEEE TIP 2012).
Differs: OpenCV pads the products of neighbours with zeros at the border; here pairs that do not exist do not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import gammaln

Array = NDArray[np.float64]

SMALLEST_SIDE = 16
"""Pixels; below, half size has hardly more pixels than the window."""

_SIGMA = 7 / 6
_RADIUS = 3
_CUBIC = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
"""Weights of the 4 nearest pixels half-way between two."""


class AsymmetricFit(NamedTuple):
    """An asymmetric generalised Gaussian: its exponent and the root mean square of either side of 0."""

    alpha: float
    left: float
    right: float

    @property
    def mean(self) -> float:
        """The mean of the distribution."""
        log_scale = (gammaln(1 / self.alpha) - gammaln(3 / self.alpha)) / 2
        ratio = np.exp(gammaln(2 / self.alpha) - gammaln(1 / self.alpha) + log_scale)
        return float((self.right - self.left) * ratio)


def compute_features(grey: Array) -> Array:
    """Computes the features of an image.

    Args:
        grey: brightness [H, W] in [0, 1].

    Returns:
        [36]: for each scale the exponent and mean square of the contrasts, then exponent, mean, left and right mean
        square of the products of horizontal, vertical, main and secondary diagonal neighbours.

    Raises:
        ValueError: a side is below `SMALLEST_SIDE`, or the image is flat where contrasts of both signs are needed.
    """
    if min(grey.shape) < SMALLEST_SIDE:
        height, width = grey.shape
        raise ValueError(
            f"an image of {width} x {height} pixels is too small; expected at least {SMALLEST_SIDE} a side"
        )
    return np.array([value for image in (grey, halve(grey)) for value in _iter_scale_features(image)])


def _iter_scale_features(image: Array) -> Iterator[float]:
    contrasts = normalise_contrast(image)
    fit = fit_asymmetric(contrasts)
    yield from (fit.alpha, (fit.left**2 + fit.right**2) / 2)
    for first, second in (
        (contrasts[:, :-1], contrasts[:, 1:]),
        (contrasts[:-1], contrasts[1:]),
        (contrasts[:-1, :-1], contrasts[1:, 1:]),
        (contrasts[1:, :-1], contrasts[:-1, 1:]),
    ):
        fit = fit_asymmetric(first * second)
        yield from (fit.alpha, fit.mean, fit.left**2, fit.right**2)


def normalise_contrast(image: Array) -> Array:
    """Returns the mean-subtracted, contrast-normalised coefficients [H, W] of brightness in [0, 1].

    Local means and deviations are weighted by a 7 x 7 Gaussian of deviation 7/6; 1/255 is added to the deviation.
    """
    mean = _blur(image)
    variance = np.maximum(_blur(image**2) - mean**2, 0)
    # Rounding leaves a variance of about 1e-17 in a flat region; its sign must not decide.
    difference = image - mean
    difference[np.abs(difference) < 1e-12] = 0
    coefficients: Array = difference / (np.sqrt(variance) + 1 / 255)
    return coefficients


def _blur(image: Array) -> Array:
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window /= window.sum()
    blurred: Array = correlate1d(correlate1d(image, window, axis=0, mode="nearest"), window, axis=1, mode="nearest")
    return blurred


def halve(image: Array) -> Array:
    """Resizes an image [H, W] to half its size; an odd last row or column is cut off."""
    for axis in (0, 1):
        size = image.shape[axis] // 2
        even = np.take(image, np.arange(2 * size), axis=axis)
        padded = np.pad(even, [(1, 1) if at == axis else (0, 0) for at in (0, 1)], mode="edge")
        taps = [np.take(padded, 2 * np.arange(size) + tap, axis=axis) for tap in range(4)]
        image = sum((weight * tap for weight, tap in zip(_CUBIC, taps, strict=True)), start=np.zeros_like(taps[0]))
    return image


def fit_asymmetric(values: Array) -> AsymmetricFit:
    """Fits an asymmetric generalised Gaussian by its moments.

    Raises:
        ValueError: there are no negative or no positive values.
    """
    negative, positive = values[values < 0], values[values > 0]
    if not negative.size or not positive.size:
        raise ValueError("the image is flat: it has no contrasts of both signs")
    left, right = np.sqrt(np.mean(negative**2)), np.sqrt(np.mean(positive**2))
    ratio = left / right
    moments = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = moments * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    exponents, known = _moment_table()
    nearest = int(np.argmin(np.abs(known - wanted)))
    return AsymmetricFit(float(exponents[nearest]), float(left), float(right))


@cache
def _moment_table() -> tuple[Array, Array]:
    """E|x|^2 / E x^2 of generalised Gaussians by their exponent."""
    exponents: Array = 0.2 + 0.001 * np.arange(9800, dtype=np.float64)
    logs = 2 * gammaln(2 / exponents) - gammaln(1 / exponents) - gammaln(3 / exponents)
    return exponents, np.exp(logs)
