"""The sampler: from noise to clean latents along a plan of levels, deterministic or not.

DDIM written with a and b, so that with eta 0 it is Euler's method for flows.

Shapes: B rows; latents are [B, ...].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mmalign import ConfigError
from mmalign_diffusion.config import Prediction
from mmalign_diffusion.ddim import transition_std
from mmalign_diffusion.decoding import Spacing
from mmalign_diffusion.parametrisation import align, to_epsilon, to_sample
from mmalign_diffusion.prediction import Conditions, Denoising
from mmalign_diffusion.randomness import draw_noise
from mmalign_diffusion.schedules import Schedule


def sampling_plan(count: int, steps: int, spacing: Spacing) -> Tensor:
    """Returns the levels that a sampler visits, from noise to data: int64 [count + 1], the last one -1, clean.

    Args:
        count: steps of the sampler, in 1..steps.
        steps: T of the schedule.
        spacing: `trailing` starts at T - 1; `leading` takes multiples of T // count.

    >>> sampling_plan(4, 1000, "trailing").tolist(), sampling_plan(4, 1000, "leading").tolist()
    ([999, 749, 499, 249, -1], [750, 500, 250, 0, -1])
    """
    if not 1 <= count <= steps:
        raise ConfigError(f"decoding.max_steps: {count}; the model has {steps} levels of noise")
    if spacing == "leading":
        levels = torch.arange(count).flip(0) * (steps // count)
    else:
        levels = steps * torch.arange(count, 0, -1) // count - 1
    return torch.cat([levels, torch.tensor([-1])])


def sampler_step(
    output: Tensor,
    x: Tensor,
    levels: Tensor,
    following: Tensor,
    schedule: Schedule,
    prediction: Prediction,
    *,
    eta: float,
) -> tuple[Tensor, Tensor]:
    """Computes the distribution of the latents at the next level from the output of a network of any kind.

    Unlike `ddim_step`, which is given the noise, it can start from a level that is nothing but noise (a = 0), unless
    the noise is what the network predicts.

    Args:
        output: [B, ...], of the network, with guidance.
        x: [B, ...], latents at `levels`.
        levels: [B], int64.
        following: [B], int64, less noisy ones.
        eta: share of the noise that is resampled, 0 to 1.

    Returns:
        mean [B, ...] and standard deviation [B].

    Source: DDIM, arXiv:2010.02502.
    """
    (a, b), (next_a, next_b) = schedule.coefficients(levels), schedule.coefficients(following)
    clean = to_sample(output, x, a, b, prediction)
    noise = to_epsilon(output, x, a, b, prediction)
    std = eta * transition_std(levels, following, schedule) if eta else torch.zeros_like(b)
    kept = (next_b**2 - std**2).clamp(min=0).sqrt()
    return align(next_a, clean) * clean + align(kept, noise) * noise, std


def check_start(denoising: Denoising, levels: Tensor) -> None:
    """Raises ConfigError where sampling would begin at a level from which no clean latents follow."""
    a, _ = denoising.family.schedule.coefficients(levels[:1])
    if denoising.prediction == "epsilon" and float(a) == 0:
        raise ConfigError(
            f"decoding.spacing: timestep {int(levels[0])} is nothing but noise (zero terminal SNR), where a network "
            "that predicts the noise tells nothing of an image; take leading, or a model that predicts velocities"
        )


@torch.no_grad()
def sample(
    denoising: Denoising,
    conditions: Conditions,
    start: Tensor,
    levels: Tensor,
    *,
    eta: float,
    generators: Sequence[Generator],
    moving: Tensor | None = None,
) -> Tensor:
    """Denoises.

    Args:
        start: [B, ...], standard normal, latents at the first level.
        levels: [L + 1], int64, falling.
        eta: share of the noise that is resampled in every step, 0 to 1.
        generators: B of them, for that noise.
        moving: bool, to be broadcast to [B, ...]: what is denoised; the rest stays as it is. None for all.

    Returns:
        [B, ...], latents at the last level, float32.
    """
    check_start(denoising, levels)
    x = start
    for level, following in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        now = torch.full((len(x),), level, device=x.device)
        then = torch.full_like(now, following)
        output = denoising.output(x, now, conditions)
        before = x
        x, std = sampler_step(output, x, now, then, denoising.family.schedule, denoising.prediction, eta=eta)
        if bool((std > 0).any()):
            x = x + align(std, x) * draw_noise(generators, x.shape[1:]).to(x)
        x = x if moving is None else torch.where(moving, x, before)
    return x
