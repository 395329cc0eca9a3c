"""From clean latents to the noisy ones from which the sampler would make them, and back.

Every row goes to a level of its own. `level_plan` says by which levels; a row that has landed stays put and costs no
forward. Nothing here leaves a graph: what comes out is data.

A plan is int64 [B, L + 1]: the level where a row is (-1, clean), then where it is after every step; the last one is
repeated once it is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from mmalign_diffusion.ddim import ddim_step, transition_std
from mmalign_diffusion.parametrisation import align, widen
from mmalign_diffusion.renoise import Denoise, NoiseRule, StagedRule, estimate_noise, split_rows
from mmalign_diffusion.schedules import Schedule

SelectRows = Callable[[Tensor], Denoise]
"""Indices of rows, int64 [R], to the denoiser of these, under their own prompts."""

Move = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""(latents, levels, next levels, indices of these rows, step of the plan) to latents at the next levels."""


def level_plan(targets: Tensor, *, count: int, steps: int) -> Tensor:
    """Plans the way from clean latents to `targets` over `count` evenly spaced levels; the last step is cut short.

    Args:
        targets: int64 [B], in 0..steps - 1, where each row lands exactly.
        count: steps that the way to the most noise takes, in 1..steps.
        steps: T.

    Returns:
        [B, count + 1].

    >>> level_plan(torch.tensor([250, 999]), count=4, steps=1000)
    tensor([[ -1, 249, 250, 250, 250],
            [ -1, 249, 499, 749, 999]])
    """
    _check_count(count, steps)
    if bool(((targets < 0) | (targets >= steps)).any()):
        raise ValueError(f"targets: expected timesteps in 0..{steps - 1}")
    ends = (torch.arange(1, count + 1, device=targets.device) * steps).div(count, rounding_mode="floor") - 1
    clean = torch.full((len(targets), 1), -1, device=targets.device)
    return torch.cat([clean, torch.minimum(ends, targets.unsqueeze(1))], dim=1)


def official_level_plan(
    targets: Tensor, *, count: int, steps: int, offset: int, told: Literal["source", "destination"]
) -> Tensor:
    """Plans as the released code of InPO does, which lands near `targets`: for comparison with it.

    A grid label below the target stands for one step. The label is that of the step's start with `source` (diffusers
    up to 0.21), so that rows land at the first level from the target on; that of its end with `destination` (diffusers
    from 0.22), so that they land below. The level before the grid is the schedule's final one.

    Args:
        targets: int64 [B].
        count: labels of the grid, in 1..steps.
        steps: T.
        offset: the first level of the grid, `steps_offset` of the scheduler.
        told: which level the network is told, see `NoiseRule`.

    Returns:
        [B, count + 1]; the first level is negative.
    """
    _check_count(count, steps)
    levels = torch.arange(-1, count, device=targets.device) * (steps // count) + offset
    labels = levels[:-1] if told == "source" else levels[1:]
    taken = (labels < targets.unsqueeze(1)).sum(1, keepdim=True)
    return levels[torch.minimum(torch.arange(count + 1, device=targets.device), taken)]


@torch.no_grad()
def invert(
    x0: Tensor,
    levels: Tensor,
    schedule: Schedule,
    select: SelectRows,
    rule: NoiseRule | StagedRule,
    *,
    eta: float = 0.0,
    noise: Tensor | None = None,
) -> Tensor:
    """Inverts clean latents to the last level of every row's plan.

    Args:
        x0: [B, ...], latents at the first level.
        levels: [B, L + 1], the plan.
        schedule: of the noise.
        select: the denoiser of given rows.
        rule: how the noise of a step is found.
        eta: how much fresh noise a step adds, as a share of that of the sampler's step back; InPO takes 0.1.
        noise: [B, L, ...], standard normal, for eta above 0.

    Returns:
        [B, ...], without graph.

    Raises:
        ValueError: eta without noise; levels above the schedule's.
    """
    if eta and noise is None:
        raise ValueError("noise: expected one draw for every row and step, as eta is above 0")

    clean = widen(x0)

    def move(x: Tensor, now: Tensor, then: Tensor, rows: Tensor, index: int) -> Tensor:
        eps = torch.empty_like(x)
        for one, part in split_rows(rule, then):
            levels_of = now[part], then[part]
            denoise = select(rows[part])
            eps[part] = estimate_noise(x[part], *levels_of, schedule, denoise, one, clean[rows[part]])
        moved, _ = ddim_step(x, eps, now, then, schedule, 0.0)
        if noise is None:
            return moved
        return moved + eta * align(transition_std(then, now, schedule), moved) * noise[rows, index].to(moved.dtype)

    return _walk(x0, levels, move)


@torch.no_grad()
def reconstruct(x: Tensor, levels: Tensor, schedule: Schedule, select: SelectRows) -> Tensor:
    """Denoises the latents of an inversion [B, ...] back over the levels of its plan, deterministically."""

    def move(x: Tensor, now: Tensor, then: Tensor, rows: Tensor, index: int) -> Tensor:
        return ddim_step(x, select(rows)(x, now.clamp(min=0)), now, then, schedule, 0.0)[0]

    return _walk(x, levels.flip(1), move)


def round_trip_error(
    x0: Tensor, levels: Tensor, schedule: Schedule, select: SelectRows, rule: NoiseRule | StagedRule
) -> Tensor:
    """Root mean square [B] of what inverting and denoising back over the same levels makes of x0 [B, ...], less x0."""
    back = reconstruct(invert(x0, levels, schedule, select, rule), levels, schedule, select)
    return (back - x0.to(back.dtype)).flatten(1).square().mean(1).sqrt()


def _walk(x: Tensor, levels: Tensor, move: Move) -> Tensor:
    """Moves every row along its levels; rows whose level stays the same are left out."""
    if levels.shape[:1] != x.shape[:1]:
        raise ValueError(f"levels: expected a plan for {x.shape[0]} rows, got shape {tuple(levels.shape)}")
    x, levels = widen(x), levels.to(x.device)
    for index, (now, then) in enumerate(zip(levels.unbind(1)[:-1], levels.unbind(1)[1:], strict=True)):
        rows = (now != then).nonzero().squeeze(1)
        if len(rows):
            x = x.index_copy(0, rows, move(x[rows], now[rows], then[rows], rows, index))
    return x


def _check_count(count: int, steps: int) -> None:
    if not 1 <= count <= steps:
        raise ValueError(f"count: expected 1 to {steps} levels, got {count}")
