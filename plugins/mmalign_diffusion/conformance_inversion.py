"""Golden-vector cases of inversion: data with a known denoiser, and the levels of the released code of InPO."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from mmalign_diffusion.conformance import stable_diffusion_schedule
from mmalign_diffusion.ddim import ddim_step
from mmalign_diffusion.gaussian_data import GaussianData
from mmalign_diffusion.inversion import invert, official_level_plan, reconstruct
from mmalign_diffusion.renoise import DDIM_DESTINATION, DDIM_SOURCE, SMPO, NoiseRule, renoise

Values = Mapping[str, Any]

GRID = (1, 201, 401, 601, 801, 999)
START = 0.85
COUNTS = (5, 10, 20, 50, 100, 200, 500, 998)
"""The grid, the latents at its first level and the numbers of steps of a case that gives none."""

RULES: dict[str, NoiseRule] = {
    "ddim_source": DDIM_SOURCE,
    "ddim_dest": DDIM_DESTINATION,
    "ddim_smpo_source": replace(SMPO, told="source"),
    "ddim_smpo_dest": SMPO,
    **{f"renoise_K{count}": renoise(count) for count in (1, 2, 3, 5)},
}


def compute_gaussian(inputs: Values, hparams: Values) -> dict[str, Any]:
    """Inversion of a number under the exact denoiser of normal data: every variant, on a coarse grid and finer ones."""
    data = GaussianData(hparams["m"], hparams["s"], stable_diffusion_schedule())
    grid, start = hparams.get("grid", GRID), float(hparams.get("x_start", START))
    undone = _follow(start, grid, data.undo_step)
    back = _denoise(undone[-1], grid, data)
    trajectories = {name: _invert(start, grid, data, rule) for name, rule in RULES.items()}
    errors = {name: _denoise(one[-1], grid, data) - start for name, one in trajectories.items()}
    exact = {
        "implicit_exact": undone,
        "denoise_back_from_implicit": back,
        "exact_ode": _follow(start, grid, data.transport),
    }
    single = ddim_step(_numbers([start]), _numbers([0.3]), *_pair(101, 201), data.schedule, 0.0)[0]
    return {
        "grid": grid,
        "x_start_at_level_1": start,
        **trajectories,
        **exact,
        "contraction_ratio": data.contraction(torch.tensor(grid[:-1]), torch.tensor(grid[1:])),
        "roundtrip_error_on_grid": {**errors, "implicit_exact": back - start},
        "official_grid_diffusers_0.42.1_N10": _official_levels("destination")[1:],
        "official_grid_diffusers_0.20_N10": _official_levels("source")[:-1],
        "single_step_101_to_201_eps0.3": single[0],
        "terminal_error_vs_N(1..999 grid round(1+i*998/N))": {
            str(count): _terminal(start, count, data) for count in COUNTS
        },
    }


def compute_point_mass(inputs: Values, hparams: Values) -> Tensor:
    """Inversion of a noisy point, the only one there is: the noise never changes, however long the steps."""
    data = GaussianData(hparams["m"], 0.0, stable_diffusion_schedule())
    a, b = data.schedule.coefficients(torch.tensor(hparams["grid"][:1]))
    start = float(a * data.mean + b * hparams["noise"])
    return torch.tensor(_invert(start, hparams["grid"], data, DDIM_SOURCE)[1:], dtype=torch.float64)


def compute_level_plan(inputs: Values, hparams: Values) -> list[dict[str, Any]] | None:
    """The steps by which the released code of InPO reaches a timestep, with either version of its scheduler."""
    if hparams["rule"] != "keep grid timesteps < t" or hparams.get("spacing") != "leading":
        return None
    grid = {"count": hparams["N"], "steps": stable_diffusion_schedule().steps, "offset": hparams["steps_offset"]}
    timesteps = inputs["t"].long()
    source, destination = (
        official_level_plan(timesteps, told=told, **grid).tolist() for told in ("source", "destination")
    )
    return [
        {"t": t, **_describe(one, "v020", called=0), **_describe(other, "v042", called=1)}
        for t, one, other in zip(timesteps.tolist(), source, destination, strict=True)
    ]


def _describe(levels: Sequence[int], version: str, *, called: int) -> dict[str, Any]:
    """Steps taken, the level that the network is told in each (its start or its end), and the one that is reached."""
    steps = [step for step in itertools.pairwise(levels) if step[0] != step[1]]
    return {
        f"steps_{version}": steps,
        f"unet_timestep_{version}": [step[called] for step in steps],
        f"final_level_{version}": steps[-1][1] if steps else math.inf,
    }


def _official_levels(told: Literal["source", "destination"]) -> list[int]:
    plan = official_level_plan(torch.tensor([1000]), count=10, steps=1000, offset=1, told=told)
    return [int(level) for level in plan[0]]


def _terminal(start: float, count: int, data: GaussianData) -> dict[str, float]:
    """Difference to the probability flow at the last level, in `count` steps from 1 to 999."""
    grid = [round(1 + index * 998 / count) for index in range(count + 1)]
    exact = _follow(start, [grid[0], grid[-1]], data.transport)[-1]
    rules = {"source": DDIM_SOURCE, "dest": DDIM_DESTINATION}
    return {name: _invert(start, grid, data, rule)[-1] - exact for name, rule in rules.items()}


def _invert(start: float, grid: Sequence[int], data: GaussianData, rule: NoiseRule) -> list[float]:
    """The number at every level of the grid."""

    def step(x: Tensor, now: Tensor, then: Tensor) -> Tensor:
        return invert(x, torch.stack([now, then], 1), data.schedule, lambda rows: data.denoise, rule)

    return _follow(start, grid, step)


def _denoise(end: float, grid: Sequence[int], data: GaussianData) -> float:
    return float(reconstruct(_numbers([end]), torch.tensor([grid]), data.schedule, lambda rows: data.denoise))


def _follow(start: float, grid: Sequence[int], step: Any) -> list[float]:
    numbers = [start]
    for now, then in itertools.pairwise(grid):
        numbers.append(float(step(_numbers(numbers[-1:]), *_pair(now, then))))
    return numbers


def _pair(now: int, then: int) -> tuple[Tensor, Tensor]:
    return torch.tensor([now]), torch.tensor([then])


def _numbers(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
