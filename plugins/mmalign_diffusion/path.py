"""The sampler's path as a Gaussian policy: which steps are random, and the distribution of each.

Shapes: B rows; latents are [B, ...].
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from torch import Generator, Tensor

from mmalign import ConfigError
from mmalign_diffusion.config import Prediction
from mmalign_diffusion.flow_sde import flow_grpo_diffusion, flow_sde_step
from mmalign_diffusion.parametrisation import to_flow
from mmalign_diffusion.sampler import sampler_step
from mmalign_diffusion.schedules import Flow, Schedule

SDE = Literal["ddim", "flow_grpo", "dance_grpo"]


@dataclass(frozen=True)
class Stepper:
    """The distribution of one step of the sampler.

    Attributes:
        sde: which stochastic step.
        eta: scale of its noise.
        prediction: what the denoiser's output is.

    Raises:
        ConfigError: the step is not for such a schedule.
    """

    schedule: Schedule
    sde: SDE
    eta: float
    prediction: Prediction

    def __post_init__(self) -> None:
        """Checks that the step suits the schedule."""
        flow = isinstance(self.schedule, Flow)
        if flow == (self.sde == "ddim"):
            wanted = "flow_grpo or dance_grpo" if flow else "ddim"
            raise ConfigError(f"modality.sde: {self.sde!r} does not suit the noise levels of this model; use {wanted}")
        if self.sde == "ddim" and self.eta > 1:
            raise ConfigError(f"modality.eta: {self.eta}; sde 'ddim' takes 0 to 1")

    def distribution(
        self, output: Tensor, x: Tensor, levels: Tensor, following: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Computes mean [B, ...] and standard deviation [B] of the latents at the next level.

        Args:
            output: [B, ...], of the denoiser, with guidance.
            x: [B, ...], latents at `levels`.
            levels: [B], int64.
            following: [B], int64, less noisy ones.
            second: [B], int64, the second level of the sampler, by which Flow-GRPO bounds the noise of the first step.
        """
        if self.sde == "ddim":
            return sampler_step(output, x, levels, following, self.schedule, self.prediction, eta=self.eta)
        a, b = self.schedule.coefficients(levels)
        _, after = self.schedule.coefficients(following)
        return flow_sde_step(x, to_flow(output, x, a, b, self.prediction), b, after, self._diffusion(b, second))

    def move(self, output: Tensor, x: Tensor, levels: Tensor, following: Tensor) -> Tensor:
        """Computes the latents at the next level without noise, [B, ...]."""
        return sampler_step(output, x, levels, following, self.schedule, self.prediction, eta=0.0)[0]

    def _diffusion(self, sigmas: Tensor, second: Tensor) -> Tensor:
        if self.sde == "dance_grpo":
            return torch.full_like(sigmas, self.eta)
        first = float(self.schedule.coefficients(second)[1].max())
        return flow_grpo_diffusion(sigmas, noise_level=self.eta, first_sigma=first)


def stochastic_steps(count: int, window: tuple[int, int] | None) -> range:
    """Returns which of the `count` steps of the sampler are random: those of `window`, never the last.

    The last step lands on clean latents, where a Gaussian would have no width, or would leave noise in the image.

    Raises:
        ConfigError: none is left.
    """
    low, high = window or (0, count)
    steps = range(low, min(high, count - 1))
    if not steps:
        raise ConfigError(
            f"modality.window: no random step in {[low, high]} of {count} steps of the sampler, the last of which "
            "adds no noise; raise decoding.max_steps"
        )
    return steps


def choose_trained(steps: range, fraction: float, generator: Generator) -> list[int]:
    """Draws the steps that are trained: ceil(fraction n) of the n random ones, ascending."""
    count = ceil(fraction * len(steps))
    drawn = torch.randperm(len(steps), generator=generator)[:count].sort().values
    return [steps[place] for place in drawn.tolist()]
