"""Samples of a denoiser by DDIM with classifier-free guidance, for the report of its training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmalign_diffusion.digits.data import SIDE
from mmalign_diffusion.digits.networks import NULL_CLASS


@torch.no_grad()
def sample_digits(
    network: Any, scheduler: Any, labels: Tensor, *, steps: int, guidance: float, generator: torch.Generator
) -> Tensor:
    """Samples one image for every class in `labels` [N], with DDIM (arXiv:2010.02502) at eta 0.

    Args:
        guidance: weight of the class-conditional prediction against the unconditional one (arXiv:2207.12598); 1 is
            the conditional prediction alone.

    Returns:
        pixels [N, 1, 16, 16] in [0, 1].
    """
    scheduler.set_timesteps(steps)
    images = torch.randn((len(labels), 1, SIDE, SIDE), generator=generator)
    nothing = torch.full_like(labels, NULL_CLASS)
    for timestep in scheduler.timesteps:
        velocity = network(images, timestep, labels).sample
        if guidance != 1:
            unconditional = network(images, timestep, nothing).sample
            velocity = unconditional + guidance * (velocity - unconditional)
        images = scheduler.step(velocity.float(), timestep, images).prev_sample
    return ((images + 1) / 2).clamp(0, 1)
