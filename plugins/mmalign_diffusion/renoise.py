"""The noise by which an inversion step goes to a level of more noise.

The sampler goes from t to s with the noise predicted at (x_t, t). To go back one needs that same noise while x_t is
unknown: x_t = move(x_s, eps(x_t, t)) is an equation in x_t. Its fixed-point iteration from x_s gives every rule here:
the first iterate is DDIM inversion, the mean of two that of SmPO, more of them ReNoise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmalign_diffusion.ddim import ddim_step
from mmalign_diffusion.editability import Editability
from mmalign_diffusion.parametrisation import align
from mmalign_diffusion.schedules import Schedule

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(latents [R, ...], timesteps [R], at least 0) to the noise predicted in them [R, ...]."""


@dataclass(frozen=True)
class NoiseRule:
    """How the noise of an inversion step is found.

    Attributes:
        weights: of the noises predicted in the 1st, 2nd, ... iterate, which starts from the latents at hand; their sum
            is 1. Every one costs a forward.
        told: which level the network is told: that of the latents at hand (`source`) or that which is gone to
            (`destination`), at which the sampler will call it on the way back. Only the iteration with `destination`
            comes closer to the exact inverse.
        editability: corrects the noise from the first iterate that has a weight on; None leaves it alone. It costs a
            forward a step, and latents have to be images [R, C, H, W].
    """

    weights: tuple[float, ...] = (1.0,)
    told: Literal["source", "destination"] = "destination"
    editability: Editability | None = None

    def __post_init__(self) -> None:
        """Checks the weights.

        Raises:
            ValueError: none, or their sum is not 1.
        """
        if abs(sum(self.weights) - 1) > 1e-6:
            raise ValueError(f"weights: expected numbers whose sum is 1, got {self.weights}")


DDIM_SOURCE = NoiseRule(told="source")
"""One forward at the level at hand: diffusers up to 0.21, InPO."""
DDIM_DESTINATION = NoiseRule()
"""One forward at the level gone to: diffusers from 0.22."""
SMPO = NoiseRule((0.5, 0.5))
"""Mean of the first two iterates: SmPO (arXiv:2506.02698), whose released code tells the source level both times."""


@dataclass(frozen=True)
class StagedRule:
    """Another rule for the first steps, in which predictions differ most.

    Attributes:
        early: for steps to levels below `before`.
        late: for the others.
        before: timestep.
    """

    early: NoiseRule
    late: NoiseRule
    before: int = 250


def renoise(iterations: int, *, averaged: int = 1) -> NoiseRule:
    """ReNoise: the mean of the last `averaged` of `iterations` iterates, each at least 1.

    Raises:
        ValueError: numbers that do not fit.

    Source: arXiv:2403.14602.
    """
    if not 1 <= averaged <= iterations:
        raise ValueError(f"averaged: expected 1 to {iterations} iterations, got {averaged}")
    return NoiseRule((0.0,) * (iterations - averaged) + (1 / averaged,) * averaged)


RENOISE_TURBO = StagedRule(renoise(5, averaged=5), renoise(10, averaged=2))
"""ReNoise as released for SDXL-Turbo, with 4 steps; without its editability."""


def split_rows(rule: NoiseRule | StagedRule, next_timesteps: Tensor) -> list[tuple[NoiseRule, Tensor]]:
    """Splits rows that go to `next_timesteps` [R] by the rule that holds for them, indices int64 [.] each."""
    if isinstance(rule, NoiseRule):
        return [(rule, torch.arange(len(next_timesteps), device=next_timesteps.device))]
    early = next_timesteps < rule.before
    parts = [(rule.early, early.nonzero().squeeze(1)), (rule.late, (~early).nonzero().squeeze(1))]
    return [(one, rows) for one, rows in parts if len(rows)]


def estimate_noise(
    x: Tensor,
    timesteps: Tensor,
    next_timesteps: Tensor,
    schedule: Schedule,
    denoise: Denoise,
    rule: NoiseRule,
    clean: Tensor,
) -> Tensor:
    """Estimates the noise that the sampler will predict at `next_timesteps`, levels of more noise.

    Args:
        x: [R, ...], latents at `timesteps`.
        timesteps: [R].
        next_timesteps: [R].
        schedule: of the noise.
        denoise: the network.
        rule: how.
        clean: [R, ...], where the inversion has started; only an `editability` looks at it.

    Returns:
        [R, ...].
    """
    told = (timesteps if rule.told == "source" else next_timesteps).clamp(min=0)
    correct = _build_correction(rule, clean, told, schedule, denoise)
    first = next(index for index, weight in enumerate(rule.weights) if weight)
    iterate, mean = x, torch.zeros_like(x)
    for index, weight in enumerate(rule.weights):
        noise = denoise(iterate, told)
        mean = mean + weight * noise
        if index + 1 < len(rule.weights):
            noise = correct(noise) if index >= first else noise
            iterate, _ = ddim_step(x, noise, timesteps, next_timesteps, schedule, 0.0)
    return correct(mean)


def _build_correction(
    rule: NoiseRule, clean: Tensor, timesteps: Tensor, schedule: Schedule, denoise: Denoise
) -> Callable[[Tensor], Tensor]:
    """Compares with the prediction for the image with drawn noise, once for all iterates of a step."""
    editability = rule.editability
    if editability is None:
        return lambda noise: noise
    a, b = schedule.coefficients(timesteps)
    drawn = editability.draw(clean)
    model = denoise(align(a, clean) * clean + align(b, clean) * drawn, timesteps)
    return lambda noise: editability.regularise(noise, model)
