"""The exact denoiser of data that is normally distributed, for which every inversion has a closed form.

The data are N(mean, std^2) in every entry; std 0 is a single point. Tests and studies compare with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mmalign_diffusion.parametrisation import align
from mmalign_diffusion.schedules import Schedule


@dataclass(frozen=True)
class GaussianData:
    """Normally distributed data, seen through a noise schedule.

    Attributes:
        mean: of every entry.
        std: of every entry, at least 0.
        schedule: of the noise.
    """

    mean: float
    std: float
    schedule: Schedule

    def variance(self, timesteps: Tensor) -> Tensor:
        """Variance [B] of the noisy data."""
        a, b = self.schedule.coefficients(timesteps)
        return a**2 * self.std**2 + b**2

    def denoise(self, x: Tensor, timesteps: Tensor) -> Tensor:
        """Expected noise in latents [B, ...] at `timesteps` [B]: what a perfect network predicts."""
        a, b = self.schedule.coefficients(timesteps)
        return align(b / self.variance(timesteps), x) * (x - align(a, x) * self.mean)

    def transport(self, x: Tensor, timesteps: Tensor, next_timesteps: Tensor) -> Tensor:
        """Where the probability-flow equation takes latents [B, ...]: what inversion in endless small steps gives."""
        stretch = (self.variance(next_timesteps) / self.variance(timesteps)).sqrt()
        return self._rescale(x, timesteps, next_timesteps, stretch)

    def undo_step(self, x: Tensor, timesteps: Tensor, next_timesteps: Tensor) -> Tensor:
        """The latents [B, ...] at `next_timesteps` that one denoising step to `timesteps` turns into x."""
        return self._rescale(x, timesteps, next_timesteps, 1 / self._shrinkage(timesteps, next_timesteps))

    def contraction(self, timesteps: Tensor, next_timesteps: Tensor) -> Tensor:
        """By how much [B] every fixed-point iteration of that step reduces its error."""
        (a, b), (next_a, next_b) = (self.schedule.coefficients(one) for one in (timesteps, next_timesteps))
        return (next_b - next_a * b / a) * next_b / self.variance(next_timesteps)

    def _shrinkage(self, timesteps: Tensor, next_timesteps: Tensor) -> Tensor:
        (a, b), (next_a, next_b) = (self.schedule.coefficients(one) for one in (timesteps, next_timesteps))
        return (a * next_a * self.std**2 + b * next_b) / self.variance(next_timesteps)

    def _rescale(self, x: Tensor, timesteps: Tensor, next_timesteps: Tensor, factor: Tensor) -> Tensor:
        (a, _), (next_a, _) = (self.schedule.coefficients(one) for one in (timesteps, next_timesteps))
        return align(next_a, x) * self.mean + align(factor, x) * (x - align(a, x) * self.mean)
