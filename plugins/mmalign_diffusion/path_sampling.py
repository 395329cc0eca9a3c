"""Walking from noise to data while recording every step and the log-prob that it was drawn with.

Shapes: B rows, L steps of the sampler; latents are [B, ...].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mmalign_diffusion.ddim import Reduction, gaussian_log_prob
from mmalign_diffusion.parametrisation import align
from mmalign_diffusion.path import Stepper, choose_trained, stochastic_steps
from mmalign_diffusion.prediction import Conditions, Denoising
from mmalign_diffusion.randomness import draw_noise
from mmalign_diffusion.sampler import check_start


@dataclass(frozen=True)
class PathPlan:
    """How paths are sampled.

    Attributes:
        levels: [L + 1], int64, falling.
        random: the steps that are random.
        fraction: share of them that is trained.
        temperature: factor of their deviation.
        reduction: of log-densities over the entries of a latent.
    """

    levels: Tensor
    random: range
    fraction: float
    temperature: float
    reduction: Reduction

    @classmethod
    def build(
        cls,
        levels: Tensor,
        window: tuple[int, int] | None,
        fraction: float,
        temperature: float,
        reduction: Reduction,
    ) -> PathPlan:
        """Finds the random steps; raises ConfigError where there are none."""
        return cls(levels, stochastic_steps(len(levels) - 1, window), fraction, temperature, reduction)


@dataclass(frozen=True)
class Walk:
    """Paths.

    Attributes:
        x: [B, L + 1, ...], latents at every level, float32, on the CPU.
        logps: [B, L], of every random step, 0 of others, on the CPU.
        trained: for every row the steps that are trained, ascending.
        latents: [B, ...], at the last level, on the device.
    """

    x: Tensor
    logps: Tensor
    trained: list[list[int]]
    latents: Tensor


@torch.no_grad()
def walk(
    denoising: Denoising,
    stepper: Stepper,
    plan: PathPlan,
    start: Tensor,
    conditions: Conditions,
    generators: Sequence[Generator],
) -> Walk:
    """Samples B paths.

    Args:
        start: [B, ...], standard normal.
        generators: B of them, for the noise of the steps and for which are trained.
    """
    check_start(denoising, plan.levels)
    trained = [choose_trained(plan.random, plan.fraction, one) for one in generators]
    x, visited, logps = start, [start], []
    second = torch.full((len(x),), int(plan.levels[1]), device=x.device)
    for index, (level, following) in enumerate(zip(plan.levels[:-1].tolist(), plan.levels[1:].tolist(), strict=True)):
        now = torch.full((len(x),), level, device=x.device)
        then = torch.full_like(now, following)
        output = denoising.output(x, now, conditions)
        if index in plan.random:
            mean, std = stepper.distribution(output, x, now, then, second)
            std = plan.temperature * std
            x = mean + align(std, mean) * draw_noise(generators, mean.shape[1:]).to(mean)
            logps.append(gaussian_log_prob(x, mean, std, plan.reduction).float())
        else:
            x = stepper.move(output, x, now, then)
            logps.append(torch.zeros(len(x), device=x.device))
        visited.append(x)
    return Walk(torch.stack(visited, dim=1).cpu(), torch.stack(logps, dim=1).cpu(), trained, x)
