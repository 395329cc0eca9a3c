"""One DDIM step between two noise levels, as a Gaussian: its mean and standard deviation, and what follows from them.

The mean is linear in the predicted noise. With eta above 0 a step has a density, so that log-probs, ratios and KLs are
exact; with eta = 0 it is a deterministic move, in either direction: that is what inversion uses.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mmalign_diffusion.parametrisation import align, to_sample, widen
from mmalign_diffusion.schedules import Schedule

Reduction = Literal["sum", "mean"]


def ddim_step(
    x: Tensor, eps: Tensor, timesteps: Tensor, next_timesteps: Tensor, schedule: Schedule, eta: float
) -> tuple[Tensor, Tensor]:
    """Computes the distribution of the latents at the next level.

    Args:
        x: [B, ...], latents at `timesteps`.
        eps: [B, ...], the noise predicted in them.
        timesteps: [B], their levels.
        next_timesteps: [B], the levels to go to; those of more noise are reached without any of their own.
        schedule: of the noise.
        eta: 0 (DDIM) to 1 (DDPM), the share of the noise that is resampled.

    Returns:
        mean [B, ...] and standard deviation [B], float64.

    Raises:
        ValueError: eta outside [0, 1]; shapes that do not fit; a level that is nothing but noise.

    Source: arXiv:2010.02502; written with a and b, so that it holds for flow matching too.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 to 1, got {eta}")
    (a, b), (next_a, next_b) = schedule.coefficients(timesteps), schedule.coefficients(next_timesteps)
    std = eta * transition_std(timesteps, next_timesteps, schedule) if eta else torch.zeros_like(next_b)
    x0 = to_sample(eps, x, a, b, "epsilon")
    kept = (next_b**2 - std**2).clamp(min=0).sqrt()
    return align(next_a, x0) * x0 + align(kept, x0) * eps.to(x0.dtype), std


def transition_std(timesteps: Tensor, next_timesteps: Tensor, schedule: Schedule) -> Tensor:
    """Standard deviation [B], float64, of the DDPM step from `timesteps` to `next_timesteps`, levels of less noise.

    It is 0 where the next level has no less noise.
    """
    (a, b), (next_a, next_b) = schedule.coefficients(timesteps), schedule.coefficients(next_timesteps)
    fresh = b**2 - (a * next_b / next_a) ** 2
    return torch.where(fresh > 0, next_b / b * fresh.sqrt(), 0.0)


def gaussian_log_prob(x: Tensor, mean: Tensor, std: Tensor, reduction: Reduction) -> Tensor:
    """Log-density of latents under an isotropic Gaussian, nats.

    Args:
        x: [B, ...].
        mean: [B, ...].
        std: [B], above 0.
        reduction: `sum` over the entries of a row, which is the density, or their `mean`, on which the clipping
            ranges of published recipes are tuned.

    Returns:
        [B].

    Raises:
        ValueError: a standard deviation of 0, which leaves no density; shapes that do not fit.
    """
    distance, scale = _standardise(x, mean, std)
    return _reduce(-(distance**2) / 2 - scale.log() - math.log(2 * math.pi) / 2, reduction)


def gaussian_kl(mean: Tensor, reference_mean: Tensor, std: Tensor, reduction: Reduction) -> Tensor:
    """KL divergence of two Gaussians of one standard deviation, nats; arguments, result and errors as the log-prob."""
    return _reduce(_standardise(reference_mean, mean, std)[0] ** 2 / 2, reduction)


def _standardise(x: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the distance from the mean in standard deviations, and those, to broadcast over latents."""
    if x.shape != mean.shape:
        raise ValueError(f"expected two tensors of one shape, got {tuple(x.shape)} and {tuple(mean.shape)}")
    if not bool((std > 0).all()):
        raise ValueError("a step without noise (standard deviation 0) has no density; take eta or noise above 0")
    mean = widen(mean)
    scale = align(std, mean)
    return (x.to(mean.dtype) - mean) / scale, scale


def _reduce(entries: Tensor, reduction: Reduction) -> Tensor:
    rows = entries.flatten(1)
    return rows.sum(1) if reduction == "sum" else rows.mean(1)
