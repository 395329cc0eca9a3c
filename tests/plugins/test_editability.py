"""Statistics of predicted noise, and gradient steps on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign_diffusion.editability import Editability, autocorrelation, patch_divergence


def white(seed: int = 0, side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(9)


def test_divergence_by_hand() -> None:
    """One patch of -1 and 1 has variance 16 / 15, and 1e-6 is added. Shift d: (d^2 - 1e-6) / (16 / 15 + 1e-6)."""
    patch = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(8).reshape(1, 1, 4, 4)
    assert patch_divergence(patch, patch).item() == pytest.approx(0, abs=1e-6)
    assert patch_divergence(patch + 0.5, patch).item() == pytest.approx((0.25 - 1e-6) / (16 / 15 + 1e-6), rel=1e-12)
    # Doubled: |log(1 / 4) + 4 - 1|, up to the 1e-6.
    expected = abs(torch.tensor(0.25).log().item() + 3)
    assert patch_divergence(2 * patch, patch).item() == pytest.approx(expected, rel=1e-5)


def test_rows_channels_and_patches_add_up() -> None:
    noise, model = white(1, side=8), white(2, side=8)
    found = patch_divergence(noise, model)
    cut = [noise[1:, :, y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)]
    other = [model[1:, :, y : y + 4, x : x + 4] for y in (0, 4) for x in (0, 4)]
    total = sum(patch_divergence(one, two).item() for one, two in zip(cut, other, strict=True))
    assert found[1].item() == pytest.approx(total, rel=1e-12)


def test_white_noise_is_hardly_correlated_and_an_image_is() -> None:
    assert autocorrelation(white(), generator()).max() < 0.1
    # A constant of 1 correlates by 1 at every distance: 3 channels, 2 directions, scales of 32, 16 and 8.
    assert autocorrelation(torch.ones(2, 3, 32, 32), generator()).tolist() == [18.0, 18.0]


def test_corrections_bring_noise_closer_row_by_row() -> None:
    noise, model = white(1) * 1.5 + 0.3, white(2)
    rule = Editability(divergence=0.05, correlation=5.0, steps=3)
    found = rule.regularise(noise, model)
    assert (patch_divergence(found, model) < patch_divergence(noise, model)).all()
    assert (autocorrelation(found, generator()) < autocorrelation(noise, generator())).all()
    assert not found.requires_grad
    torch.testing.assert_close(rule.regularise(noise[1:], model[1:]), found[1:])


def test_the_draw_to_compare_with_does_not_depend_on_the_batch() -> None:
    rule, x = Editability(seed=3), white()
    drawn = rule.draw(x)
    assert drawn.shape == x.shape
    assert torch.equal(drawn[1:], rule.draw(x[1:]))
    assert not torch.equal(drawn, Editability(seed=4).draw(x))


def test_nothing_to_do_changes_nothing_even_without_gradients() -> None:
    with torch.no_grad():
        noise = white(1)
        assert torch.equal(Editability(divergence=0.0, correlation=0.0).regularise(noise, white(2)), noise)
