"""What is drawn for a record, and its responses as tensors before any network has seen them.

Tensors of an encoded response: `data` (pixels or numbers as the family reads them) or `latents` (what was sampled),
`token|NAME`, `detail|NAME`, `timesteps` [K], `seed` and `measured`; `draw` of sampled ones, from which stored ones
beside them draw the same. `Diffusion.augment` turns them into `noisy` and `target` [K, ...], `timesteps` [K] and
`condition|NAME`.

Shapes: K timesteps of a response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mmalign import ConfigError, EncodedResponse, MediaLimits, Record
from mmalign_diffusion import timesteps as strategies
from mmalign_diffusion.config import Noising, Timesteps
from mmalign_diffusion.families.base import Family, Tensors
from mmalign_diffusion.prediction import mark
from mmalign_diffusion.randomness import digest_seed, draw_seed, record_seed, seeded
from mmalign_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Draws:
    """What is drawn for a record and shared by its responses, so that they are compared at the same levels.

    Attributes:
        timesteps: [K], int64.
        seeds: of the noise of every response, all alike where it is shared.
        dropped: the prompt is left out.
        measured: the round trip of its inversions is measured.
        part: seed of which part of the latents gets noise, where it is not all of them.
    """

    timesteps: Tensor
    seeds: tuple[int, ...]
    dropped: bool
    measured: bool
    part: int = 0


@dataclass(frozen=True)
class Drawing:
    """How draws are made.

    Attributes:
        probabilities: [T], of every timestep.
        drop: probability that a record is trained without its prompt.
    """

    timesteps: Timesteps
    noising: Noising
    probabilities: Tensor
    drop: float

    def draw(self, record: Record, count: int, seed: int | None = None) -> Draws:
        """Draws for a record of `count` responses, from `seed`, the record, or torch's global generator."""
        start = draw_seed() if seed is None else seed
        generator = seeded(record_seed(record) if self.timesteps.fixed else start)
        drawn = strategies.draw(self.probabilities, self.timesteps.draws, generator)
        dropped = _happens(self.drop, generator)
        measured = _happens(self.noising.round_trip, generator)
        first = draw_seed(generator)
        if self.noising.noise == "shared":
            seeds = [first] * count
        else:
            own = seeded(first)
            seeds = [draw_seed(own) for _ in range(count)]
        return Draws(drawn, tuple(seeds), dropped, measured, part=digest_seed(first))


def timestep_probabilities(settings: Timesteps, schedule: Schedule) -> Tensor:
    """Computes the probability of every timestep, [T] float64.

    Raises:
        ConfigError: the settings do not fit the schedule.
    """
    low, high = settings.range or (0, schedule.steps)
    try:
        if settings.strategy == "importance":
            return strategies.logit_normal(schedule.steps, mean=settings.mean, std=settings.std)
        if settings.strategy == "snr":
            return strategies.log_snr(schedule, low=low, high=high)
        if settings.strategy == "table":
            return strategies.table(schedule.steps, timesteps=settings.table)
        return strategies.uniform(schedule.steps, low=low, high=high)
    except ValueError as error:
        raise ConfigError(f"modality.timesteps: {error}") from None


def encode_record(family: Family, record: Record, draws: Draws, limits: MediaLimits) -> list[EncodedResponse]:
    """Encodes every response of a record, without networks."""
    tokens = choose_tokens(family, record, draws)
    read = [family.read_with_details(record, response, limits) for response in record.responses]
    return [
        build_encoded(
            family, {"data": one, **mark(details, "detail")}, family.latent_shape(one.shape), tokens, draws, index
        )
        for index, (one, details) in enumerate(read)
    ]


def choose_tokens(family: Family, record: Record, draws: Draws) -> Tensors:
    """Reads the prompt, which is checked even where it is left out."""
    tokens = family.draw_tokens(family.tokenise(record), seeded(draws.part))
    return (family.null_tokens or tokens) if draws.dropped else tokens


def build_encoded(
    family: Family, content: Tensors, shape: Sequence[int], tokens: Tensors, draws: Draws, index: int
) -> EncodedResponse:
    """Puts an encoded response together.

    Args:
        content: `data` or `latents`, and what is not as in sampling of `detail|NAME`.
        shape: of its latents.
        index: its place among the responses of its record.
    """
    tensors = {
        **mark(family.details(shape), "detail"),
        **content,
        **mark(tokens, "token"),
        "timesteps": draws.timesteps,
        "seed": torch.tensor(draws.seeds[index]),
        "measured": torch.tensor(draws.measured),
    }
    noised = family.draw_noised(shape, seeded(draws.part))
    tensors |= {} if noised is None else {"noised": noised}
    steps = len(draws.timesteps)
    return EncodedResponse(tensors, steps=steps, size=steps * family.positions(shape))


def _happens(probability: float, generator: Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)
