"""From clean latents to noisy ones: by random noise, or by running the sampler backwards.

Whatever the way, tau = (x_t - a x0) / b is the noise that would have led there; it is what a denoiser should find.

Shapes: R rows, one for every response and timestep.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor

from mmalign_diffusion.config import Noising
from mmalign_diffusion.inversion import SelectRows, invert, level_plan, official_level_plan, reconstruct
from mmalign_diffusion.parametrisation import align, widen
from mmalign_diffusion.randomness import draw_noise, seeded
from mmalign_diffusion.renoise import NoiseRule, renoise
from mmalign_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Noised:
    """Noisy latents.

    Attributes:
        noisy: [R, ...].
        tau: [R, ...], the noise in them.
        error: [R], root mean square of the round trip, NaN where it was not made; None for forward noising.
    """

    noisy: Tensor
    tau: Tensor
    error: Tensor | None = None


def noise_forward(clean: Tensor, timesteps: Tensor, seeds: list[int], schedule: Schedule) -> Noised:
    """Adds random noise.

    Args:
        clean: [R, ...], latents x0.
        timesteps: [R], int64.
        seeds: R of them; equal ones give equal noise.
        schedule: of the noise.
    """
    a, b = schedule.coefficients(timesteps)
    clean = widen(clean)
    noise = draw_noise([seeded(seed) for seed in seeds], clean.shape[1:]).to(clean)
    return Noised(align(a, clean) * clean + align(b, clean) * noise, noise)


@torch.no_grad()
def noise_by_inversion(
    clean: Tensor,
    timesteps: Tensor,
    seeds: list[int],
    schedule: Schedule,
    select: SelectRows,
    settings: Noising,
    measured: Tensor,
) -> Noised:
    """Runs the sampler backwards from the clean latents to the level of every row.

    Args:
        clean: [R, ...], latents x0.
        timesteps: [R], int64.
        seeds: R of them, for the random part of the steps.
        schedule: of the noise.
        select: the denoiser of given rows.
        settings: how.
        measured: [R] bool, the rows of which the round trip is made, too.

    Source: InPO (arXiv:2503.18454), SmPO (arXiv:2506.02698), ReNoise (arXiv:2403.14602).
    """
    rule = find_rule(settings)
    levels = _plan(timesteps, schedule, settings, rule)
    noise = None
    if settings.eta:
        shape = (levels.shape[1] - 1, *clean.shape[1:])
        noise = draw_noise([seeded(seed) for seed in seeds], shape).to(clean.device)
    noisy = invert(clean, levels, schedule, select, rule, eta=settings.eta, noise=noise)
    a, b = schedule.coefficients(timesteps)
    tau = (noisy - align(a, noisy) * clean) / align(b, noisy)
    # From a level that is nothing but noise there is no way back.
    return Noised(
        noisy, tau, _round_trip_error(clean, noisy, levels, schedule, select, measured.to(a.device) & (a > 0))
    )


def find_rule(settings: Noising) -> NoiseRule:
    """Returns how the noise of an inversion step is found."""
    weights = renoise(settings.iterations, averaged=settings.average).weights
    return NoiseRule(weights, told=settings.variant)


def _plan(timesteps: Tensor, schedule: Schedule, settings: Noising, rule: NoiseRule) -> Tensor:
    if settings.level == "exact":
        return level_plan(timesteps, count=settings.steps, steps=schedule.steps)
    return official_level_plan(
        timesteps, count=settings.steps, steps=schedule.steps, offset=settings.offset, told=rule.told
    )


def _round_trip_error(
    clean: Tensor, noisy: Tensor, levels: Tensor, schedule: Schedule, select: SelectRows, measured: Tensor
) -> Tensor:
    error = torch.full((len(clean),), nan, device=clean.device)
    rows = measured.nonzero().squeeze(1)
    if len(rows):
        back = reconstruct(noisy[rows], levels[rows], schedule, lambda some: select(rows[some]))
        error[rows] = (back - clean[rows]).flatten(1).square().mean(1).sqrt().float()
    return error
