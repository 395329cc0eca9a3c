"""Running a denoiser on rows of one shape: conditions put together, guidance, result in float32.

Shapes: B rows; latents are [B, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmalign_diffusion.config import Prediction
from mmalign_diffusion.families.base import Family, Tensors
from mmalign_diffusion.parametrisation import to_epsilon


@dataclass(frozen=True)
class Conditions:
    """What rows are conditioned on.

    Attributes:
        given: B conditions.
        null: B null conditions, or none at all where guidance is 1.
        guidance: 1 for the given condition alone.
    """

    given: Sequence[Tensors]
    null: Sequence[Tensors] = ()
    guidance: float = 1.0

    def select(self, rows: Tensor) -> Conditions:
        """Returns those of some rows."""
        chosen = rows.tolist()
        null = [self.null[row] for row in chosen] if self.null else ()
        return Conditions([self.given[row] for row in chosen], null, self.guidance)

    def join(self, details: Sequence[Tensors]) -> Conditions:
        """Adds what a denoiser is told of every row beside the prompt; it holds with and without the prompt."""
        given = [{**one, **own} for one, own in zip(self.given, details, strict=True)]
        null = [{**one, **own} for one, own in zip(self.null, details, strict=True)] if self.null else ()
        return Conditions(given, null, self.guidance)

    def repeat(self, count: int) -> Conditions:
        """Returns every row `count` times in succession."""
        given = [one for one in self.given for _ in range(count)]
        return Conditions(given, [one for one in self.null for _ in range(count)], self.guidance)


@dataclass(frozen=True)
class Denoising:
    """A network of a family.

    Attributes:
        prediction: what its output is.
        detach_null: with guidance, the output for the null condition gets no gradient.
    """

    family: Family
    network: nn.Module
    prediction: Prediction
    detach_null: bool = False

    def output(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        """Runs the network, with guidance if there is any: null + guidance (given - null).

        The rule is the same for every kind of output, as they are linear in each other.

        Args:
            noisy: [B, ...], float32, on the network's device.
            timesteps: [B], int64, levels of the schedule.

        Returns:
            [B, ...] float32: noise, clean latents, velocity or flow, as `prediction` says.
        """
        told = self.family.schedule.network_timesteps(timesteps)
        given = self._run(noisy, told, conditions.given)
        if conditions.guidance == 1:
            return given
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_null):
            null = self._run(noisy, told, conditions.null)
        return null + conditions.guidance * (given - null)

    def noise(self, noisy: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
        """Computes the noise that the output implies, [B, ...] float32."""
        a, b = self.family.schedule.coefficients(timesteps)
        return to_epsilon(self.output(noisy, timesteps, conditions), noisy, a, b, self.prediction)

    def noise_of(self, conditions: Conditions) -> Callable[[Tensor], Callable[[Tensor, Tensor], Tensor]]:
        """Returns what gives, for the indices of some rows, the function from (latents, timesteps) to their noise."""

        def select(rows: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
            own = conditions.select(rows)
            return lambda noisy, timesteps: self.noise(noisy, timesteps, own)

        return select

    def _run(self, noisy: Tensor, told: Tensor, conditions: Sequence[Tensors]) -> Tensor:
        condition = {name: value.to(noisy.device) for name, value in self.family.collate(conditions).items()}
        return self.family.predict(self.network, noisy, told, condition).float()


def pick(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the tensors whose names begin with `prefix|`, without it."""
    return {name.partition("|")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}|")}


def mark(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Puts `prefix|` before the names of tensors."""
    return {f"{prefix}|{name}": value for name, value in tensors.items()}
