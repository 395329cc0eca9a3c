"""Which noise levels are trained on: a strategy is the probability of every timestep, [T] in float64.

`draw` takes from it. A draw with other than equal probabilities weights the levels: nothing divides by them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mmalign_diffusion.schedules import Schedule


def uniform(steps: int, *, low: int, high: int) -> Tensor:
    """Equal probabilities of the timesteps `low` to `high` - 1, of `steps`.

    Raises:
        ValueError: no timestep in between.
    """
    _check_range(steps, low, high)
    probabilities = torch.zeros(steps, dtype=torch.float64)
    probabilities[low:high] = 1 / (high - low)
    return probabilities


def logit_normal(steps: int, *, mean: float, std: float) -> Tensor:
    """Importance sampling of the middle: t / T, or sigma of an unshifted flow, is the sigmoid of a normal variable.

    Args:
        steps: T.
        mean: of that variable; above 0, more noise.
        std: of that variable, positive.

    Source: arXiv:2403.03206.
    """
    edges = torch.arange(steps + 1, dtype=torch.float64) / steps
    below: Tensor = torch.special.ndtr((torch.logit(edges) - mean) / std)
    return below.diff()


def log_snr(schedule: Schedule, *, low: int, high: int) -> Tensor:
    """Probabilities with which log SNR is uniform over the timesteps `low` to `high` - 1.

    Timesteps that are nothing but noise (the last of a flow) or nothing but signal have no finite log SNR: they are not
    drawn.

    Raises:
        ValueError: fewer than two timesteps in between have noise and signal.
    """
    _check_range(schedule.steps, low, high)
    timesteps = torch.arange(low, high)
    logs = schedule.snr(timesteps).log()
    timesteps, logs = timesteps[logs.isfinite()], logs[logs.isfinite()]
    if len(timesteps) < 2:
        raise ValueError(f"range: expected two or more timesteps with noise and signal in {low}..{high - 1}")
    between = (logs[:-1] + logs[1:]) / 2
    widths = -torch.cat([logs[:1], between, logs[-1:]]).diff()
    probabilities = torch.zeros(schedule.steps, dtype=torch.float64)
    probabilities[timesteps] = widths / widths.sum()
    return probabilities


def table(steps: int, *, timesteps: Sequence[int]) -> Tensor:
    """Equal probabilities of the timesteps given, such as the four a distilled model samples with.

    Raises:
        ValueError: none, or one outside 0..steps - 1.
    """
    if not timesteps or not all(0 <= one < steps for one in timesteps):
        raise ValueError(f"timesteps: expected some in 0..{steps - 1}, got {list(timesteps)}")
    return torch.bincount(torch.tensor(timesteps), minlength=steps).double() / len(timesteps)


def draw(probabilities: Tensor, count: int, generator: Generator) -> Tensor:
    """Draws `count` timesteps independently, int64 [count], on the CPU."""
    # By the distribution function, not torch.multinomial: one uniform number a draw, and float64 throughout.
    levels = torch.rand(count, dtype=torch.float64, generator=generator) * probabilities.sum()
    drawn = torch.searchsorted(probabilities.cumsum(0), levels, right=True)
    return drawn.clamp(max=int(probabilities.nonzero().max()))


def _check_range(steps: int, low: int, high: int) -> None:
    if not 0 <= low < high <= steps:
        raise ValueError(f"range: expected 0 <= low < high <= {steps}, got {low} and {high}")
