"""The features of BRISQUE against facts that need no reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmalign_rewards.brisque_features import compute_features, fit_asymmetric, halve, normalise_contrast

SIZE = 1_000_000


def natural(side: int = 64, seed: int = 0) -> np.ndarray:
    """A random image whose spectrum falls with frequency, as that of photos does, in [0, 1]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    spectrum = np.fft.fft2(generator.normal(size=(side, side))) / np.maximum(np.hypot(rows, columns), 1 / side)
    image = np.fft.ifft2(spectrum).real
    return (image - image.min()) / (image.max() - image.min())


def test_gaussian_values_have_exponent_two() -> None:
    fit = fit_asymmetric(np.random.default_rng(0).normal(scale=3.0, size=SIZE))
    assert fit.alpha == pytest.approx(2.0, abs=0.02)
    assert (fit.left, fit.right) == (pytest.approx(3.0, rel=0.01), pytest.approx(3.0, rel=0.01))
    assert fit.mean == pytest.approx(0.0, abs=0.02)


def test_laplace_values_have_exponent_one() -> None:
    assert fit_asymmetric(np.random.default_rng(0).laplace(size=SIZE)).alpha == pytest.approx(1.0, abs=0.01)


def test_two_half_gaussians_of_other_widths() -> None:
    """Density on either side in proportion to width: left 1, right 2; the mean is (2 - 1) sqrt(2 / pi)."""
    generator = np.random.default_rng(0)
    right = generator.random(SIZE) < 2 / 3
    values = np.abs(generator.normal(size=SIZE)) * np.where(right, 2.0, -1.0)
    fit = fit_asymmetric(values)
    assert fit.alpha == pytest.approx(2.0, abs=0.02)
    assert (fit.left, fit.right) == (pytest.approx(1.0, rel=0.01), pytest.approx(2.0, rel=0.01))
    assert fit.mean == pytest.approx(np.sqrt(2 / np.pi), rel=0.02)
    assert fit.mean == pytest.approx(values.mean(), rel=0.02)


def test_values_of_one_sign_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="no contrasts of both signs"):
        fit_asymmetric(np.ones(4))


def test_contrast_ignores_brightness_and_a_flat_image_has_none() -> None:
    image = natural() / 2
    np.testing.assert_allclose(normalise_contrast(image + 0.4), normalise_contrast(image), atol=1e-6)
    assert np.abs(normalise_contrast(np.full((20, 20), 0.3))).max() == 0


def test_contrast_of_a_bright_pixel_by_hand() -> None:
    """In the middle the mean is w and the variance w - w^2, w the middle weight of the window."""
    image = np.zeros((15, 15))
    image[7, 7] = 1.0
    line = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    weight = (line[3] / line.sum()) ** 2
    expected = (1 - weight) / (np.sqrt(weight - weight**2) + 1 / 255)
    contrasts = normalise_contrast(image)
    assert contrasts[7, 7] == pytest.approx(expected, rel=1e-12)
    assert contrasts[7, 11] == 0


def test_half_size_is_bicubic_interpolation() -> None:
    image = natural(side=20)
    expected = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], scale_factor=0.5, mode="bicubic")
    np.testing.assert_allclose(halve(image), expected[0, 0].numpy(), atol=1e-12)
    assert halve(natural(side=21)).shape == (10, 10)


def test_a_ramp_of_half_size_is_the_ramp_between_the_pixels() -> None:
    ramp = np.tile(np.arange(12.0), (12, 1))
    np.testing.assert_allclose(halve(ramp)[:, 1:-1], np.tile(2 * np.arange(1, 5) + 0.5, (6, 1)), atol=1e-12)


def blocks(features: np.ndarray) -> dict[str, np.ndarray]:
    scales = features.reshape(2, 18)
    names = ("horizontal", "vertical", "main", "secondary")
    return {"alone": scales[:, :2]} | {name: scales[:, 2 + 4 * at : 6 + 4 * at] for at, name in enumerate(names)}


@pytest.mark.parametrize(
    ("turn", "swapped"),
    [
        (np.transpose, {"horizontal": "vertical", "vertical": "horizontal"}),
        (np.fliplr, {"main": "secondary", "secondary": "main"}),
        (lambda image: np.rot90(image, 2), {}),
    ],
)
def test_turning_the_image_swaps_directions(turn: object, swapped: dict[str, str]) -> None:
    image = natural()
    before, after = blocks(compute_features(image)), blocks(compute_features(turn(image)))  # type: ignore[operator]
    for name, values in after.items():
        np.testing.assert_allclose(values, before[swapped.get(name, name)], rtol=1e-3, atol=1e-9)
    if swapped:
        name = next(iter(swapped))
        assert np.abs(before[name] - before[swapped[name]]).max() > 1e-3


def test_there_are_36_finite_features() -> None:
    features = compute_features(natural())
    assert features.shape == (36,)
    assert np.isfinite(features).all()


def test_a_small_or_flat_image_has_no_features() -> None:
    with pytest.raises(ValueError, match="an image of 30 x 15 pixels is too small; expected at least 16 a side"):
        compute_features(np.zeros((15, 30)))
    with pytest.raises(ValueError, match="flat"):
        compute_features(np.full((32, 32), 0.5))
