"""Keeps the noise that ReNoise predicts like the noise of a sampler, so that what is inverted can still be edited.

Iterating makes predicted noise follow the image. Gradient steps on the noise itself pull the statistics of its patches
towards those of a prediction for the image with drawn noise, and remove correlation between its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d

PATCH = 4
SMALLEST = 8
_EPSILON = 1e-6
_LARGEST_GRADIENT = 100.0


@dataclass(frozen=True)
class Editability:
    """How much the statistics of predicted noise are corrected.

    Attributes:
        divergence: step along the gradient of the patches' divergence.
        correlation: step along the gradient of the autocorrelation.
        steps: corrections of a prediction.
        rolls: draws of the distance at which a correction looks at the autocorrelation.
        seed: of those distances, and of the noise drawn for the image to compare with; one draw for all rows.
    """

    divergence: float = 0.065
    correlation: float = 20.0
    steps: int = 4
    rolls: int = 5
    seed: int = 0

    def draw(self, x: Tensor) -> Tensor:
        """Draws the noise to compare with, one for all rows of latents [B, ...]."""
        noise = torch.randn(x.shape[1:], generator=Generator().manual_seed(self.seed), dtype=torch.float64)
        return noise.to(x).expand_as(x)

    def regularise(self, noise: Tensor, model: Tensor) -> Tensor:
        """Corrects predicted noise.

        Args:
            noise: [B, C, H, W].
            model: [B, C, H, W], noise with the statistics that are wanted.

        Returns:
            [B, C, H, W], without graph.

        Source: arXiv:2403.14602 and its released code. Differs: that code also takes distances of 0, where the
            "autocorrelation" is the variance.
        """
        generator = Generator().manual_seed(self.seed)
        for _ in range(self.steps):
            gradient = _differentiate(noise, lambda one: patch_divergence(one, model))
            noise = noise - self.divergence * gradient.clamp(-_LARGEST_GRADIENT, _LARGEST_GRADIENT)
            for _ in range(self.rolls):
                gradient = _differentiate(noise, lambda one: autocorrelation(one, generator))
                noise = noise - self.correlation / self.rolls * gradient
        return noise


def patch_divergence(noise: Tensor, model: Tensor) -> Tensor:
    """Sums over patches and channels how far mean and variance of noise are from those of a model of it.

    Args:
        noise: [B, C, H, W]; rows and columns beyond a multiple of 4 are left out.
        model: [B, C, H, W].

    Returns:
        [B], at least 0: twice the absolute KL divergence of normal distributions with these moments.
    """
    (mean, variance), (model_mean, model_variance) = (_describe_patches(one) for one in (noise, model))
    ratio = (model_variance + _EPSILON) / (variance + _EPSILON)
    distance = (variance + (mean - model_mean) ** 2) / (model_variance + _EPSILON)
    return (ratio.log() + distance - 1).abs().flatten(1).sum(1)


def autocorrelation(noise: Tensor, generator: Generator) -> Tensor:
    """Sums the squared correlation of pixels at a drawn distance, over channels, directions and ever coarser scales.

    Args:
        noise: [B, C, H, W], the sides at least 4.
        generator: draws one distance a scale, the same for all rows.

    Returns:
        [B], at least 0; of the order of 1 / (H W) for white noise.
    """
    total = noise.new_zeros(len(noise))
    while True:
        distance = int(torch.randint(1, max(2, min(noise.shape[2:]) // 2), (), generator=generator))
        for axis in (2, 3):
            correlation = (noise * noise.roll(distance, axis)).mean((2, 3))
            total = total + correlation.square().sum(1)
        if min(noise.shape[2:]) <= SMALLEST:
            return total
        noise = avg_pool2d(noise, 2)


def _describe_patches(noise: Tensor) -> tuple[Tensor, Tensor]:
    patches = noise.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(4)
    return patches.mean(4), patches.var(4)


def _differentiate(noise: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradient of a function of every row."""
    with torch.enable_grad():
        leaf = noise.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf)
    return gradient
