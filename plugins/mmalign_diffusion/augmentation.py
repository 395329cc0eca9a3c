"""From an encoded response to noisy latents and what the denoiser should make of them.

Shapes: n responses of one shape, K timesteps of each, R = n K rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

import torch
from torch import Tensor

from mmalign import EncodedResponse, Networks
from mmalign_diffusion.config import Noising, Prediction
from mmalign_diffusion.families.base import Family, Tensors
from mmalign_diffusion.noising import Noised, noise_by_inversion, noise_forward
from mmalign_diffusion.parametrisation import target
from mmalign_diffusion.prediction import Conditions, Denoising, mark, pick

ROUND_TRIP = "inversion/round_trip_error"
"""Name of the measurement."""


@dataclass(frozen=True)
class Completion:
    """How encodings are completed.

    Attributes:
        prediction: what the denoiser's output is.
        embed: tokens of rows to their conditions, with null conditions for a guidance other than 1.
    """

    family: Family
    prediction: Prediction
    noising: Noising
    embed: Callable[[Sequence[Tensors], float], Conditions]

    def augment(self, networks: Networks, responses: Sequence[EncodedResponse]) -> tuple[list[EncodedResponse], Tensor]:
        """Completes n responses of one shape.

        Returns:
            the responses, and the error of their round trips [n], NaN where none was made.
        """
        tensors = [one.tensors for one in responses]
        count = len(tensors[0]["timesteps"])
        conditions = self.embed([pick(one, "token") for one in tensors], self.noising.guidance)
        conditions = conditions.join([pick(one, "detail") for one in tensors])
        clean = self._find_latents(tensors, networks.device).repeat_interleave(count, 0)  # [R, ...]
        levels = torch.cat([one["timesteps"] for one in tensors]).to(clean.device)
        noised = self._noise(networks, clean, levels, tensors, conditions)
        a, b = self.family.schedule.coefficients(levels)
        wanted = target(self.prediction, clean, noised.tau, a, b)
        noisy, wanted = (_part_draws(rows.float().cpu(), count) for rows in (noised.noisy, wanted))  # [n, K, ...]
        rows = zip(responses, noisy, wanted, conditions.given, clean.cpu()[::count], strict=True)
        return [_fill(*row) for row in rows], _mean_error(noised, count)

    def _noise(
        self, networks: Networks, clean: Tensor, levels: Tensor, tensors: Sequence[Tensors], conditions: Conditions
    ) -> Noised:
        count = len(tensors[0]["timesteps"])
        seeds = [int(one["seed"]) + draw for one in tensors for draw in range(count)]
        if not self.noising.inverts:
            return noise_forward(clean, levels, seeds, self.family.schedule)
        measured = torch.stack([one["measured"] for one in tensors]).repeat_interleave(count)
        with networks.use(self.noising.network) as network:
            select = Denoising(self.family, network, self.prediction).noise_of(conditions.repeat(count))
            return noise_by_inversion(clean, levels, seeds, self.family.schedule, select, self.noising, measured)

    def _find_latents(self, tensors: Sequence[Tensors], device: torch.device) -> Tensor:
        if "latents" in tensors[0]:
            return torch.stack([one["latents"] for one in tensors]).to(device)
        seeds = [int(one["seed"]) for one in tensors]
        return self.family.to_latents(torch.stack([one["data"] for one in tensors]), seeds).to(device).float()


def _fill(
    response: EncodedResponse, noisy: Tensor, wanted: Tensor, condition: Mapping[str, Tensor], clean: Tensor
) -> EncodedResponse:
    if "noised" in response.tensors:
        noised = response.tensors["noised"]
        noisy, condition = torch.where(noised, noisy, clean), {**condition, "noised": noised}
    kept = {name: response.tensors[name] for name in ("timesteps", "draw") if name in response.tensors}
    return replace(response, tensors={"noisy": noisy, "target": wanted, **kept, **mark(condition, "condition")})


def _mean_error(noised: Noised, count: int) -> Tensor:
    if noised.error is None:
        return torch.full((len(noised.noisy) // count,), nan)
    return _part_draws(noised.error.cpu(), count).mean(1)


def _part_draws(rows: Tensor, count: int) -> Tensor:
    """Gives the K draws of a response an axis of their own: [R, ...] to [n, K, ...]."""
    return rows.reshape(len(rows) // count, count, *rows.shape[1:])
