"""The sampler: from noise to clean latents along a plan of levels, deterministic or not.

DDIM written with a and b, so that with eta 0 it is Euler's method for flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from mmalign import ConfigError
from mmalign_diffusion.ddim import ddim_step
from mmalign_diffusion.decoding import Spacing
from mmalign_diffusion.parametrisation import align
from mmalign_diffusion.randomness import draw_noise
from mmalign_diffusion.schedules import Schedule

Noise = Callable[[Tensor, Tensor], Tensor]
"""(latents [B, ...], timesteps [B]) to the noise predicted in them."""


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


@torch.no_grad()
def sample(
    noise: Noise, start: Tensor, levels: Tensor, schedule: Schedule, *, eta: float, generators: Sequence[Generator]
) -> Tensor:
    """Denoises.

    Args:
        noise: the denoiser.
        start: [B, ...], standard normal, latents at the first level.
        levels: [L + 1], int64, falling.
        eta: share of the noise that is drawn anew in every step, 0 to 1.
        generators: B of them, for that noise.

    Returns:
        [B, ...], latents at the last level.
    """
    x = start
    for level, following in zip(levels[:-1].tolist(), levels[1:].tolist(), strict=True):
        now = torch.full((len(x),), level, device=x.device)
        then = torch.full_like(now, following)
        x, std = ddim_step(x, noise(x, now), now, then, schedule, eta)
        if bool((std > 0).any()):
            x = x + align(std, x) * draw_noise(generators, x.shape[1:]).to(x)
    return x
