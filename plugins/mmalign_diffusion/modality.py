"""The modality `diffusion`: a response is scored by the denoising error at one or more drawn noise levels.

The log-prob of a step is -(1/2) weight(t) mse(target, prediction), divided by the number of levels: the log-density of
a unit Gaussian around the prediction, per entry and up to a constant. With it DPO with its beta is Diffusion-DPO, and,
where the noisy latent comes from inversion, InPO, with that same beta.

Shapes: N responses, K timesteps of each, R = N K rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import nan
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmalign import ConfigError, EncodedResponse, Generated, Networks, Record
from mmalign_diffusion.augmentation import ROUND_TRIP, Completion
from mmalign_diffusion.config import Noising, Timesteps, Weight
from mmalign_diffusion.decoding import DiffusionDecoding
from mmalign_diffusion.denoiser import DenoiserModality, Request
from mmalign_diffusion.encoding import Drawing, build_encoded, choose_tokens, encode_record, timestep_probabilities
from mmalign_diffusion.families.base import Tensors
from mmalign_diffusion.families.masked_tokens import MaskedTokens
from mmalign_diffusion.masked_sampling import sample_masked
from mmalign_diffusion.prediction import Conditions, pick
from mmalign_diffusion.randomness import draw_noise, seeded
from mmalign_diffusion.rows import group_by_shape, restore_order
from mmalign_diffusion.sampler import sample, sampling_plan
from mmalign_diffusion.weights import step_weights

NULL_SHARE = 0.2
"""Share of records that are trained without their prompt, as in the code of Diffusion-DPO."""


@dataclass(eq=False)
class Diffusion(DenoiserModality):
    """Denoising errors as log-probs. The fields are those of `DiffusionConfig`, which says what they mean."""

    noising: Noising = field(default_factory=Noising)
    timesteps: Timesteps = field(default_factory=Timesteps)
    weight: Weight = "constant"
    snr_gamma: float = 5.0
    reduction: Literal["mean", "sum"] = "mean"
    drop_condition: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_guidance(self.noising.guidance, "modality.noising.guidance")
        if self.drop_condition and self.network_family.null_tokens is None:
            raise ConfigError("modality.drop_condition: this model has no null condition; set it to 0")
        self._check_weights()
        if self.noising.inverts:
            self.required_networks = frozenset({self.noising.network})
        # What the policy inverts differs at every visit, whatever was drawn.
        self.stochastic_encoding = not self.timesteps.fixed or "policy" in self.required_networks

    def _check_weights(self) -> None:
        """Raises ConfigError where a level that may be drawn has no finite weight: a run would end there."""
        if self.weight == "constant":
            return
        levels = self.drawing.probabilities.nonzero()[:, 0]
        step_weights(
            levels, self.network_family.schedule, self.output_kind, weighting=self.weight, gamma=self.snr_gamma
        )

    @cached_property
    def drawing(self) -> Drawing:
        """How timesteps, noise and dropped prompts are drawn."""
        family = self.network_family
        default = 0.0 if family.null_tokens is None else NULL_SHARE
        drop = default if self.drop_condition is None else self.drop_condition
        return Drawing(self.timesteps, self.noising, timestep_probabilities(self.timesteps, family.schedule), drop)

    def encoding_settings(self) -> tuple[Any, ...]:
        """Timesteps, noising, dropped prompts."""
        return (self.timesteps, self.noising, self.drop_condition)

    # -- encoding

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Reads every response and draws the levels and the noise; see `Modality.encode`."""
        draws = self.drawing.draw(record, len(record.responses))
        return encode_record(self.network_family, record, draws, self.media_limits)

    def encode_beside(self, record: Record, sampled: Sequence[EncodedResponse]) -> list[EncodedResponse]:
        """Encodes stored responses at the levels of the sampled ones, with the prompt left out where theirs is."""
        count = len(record.responses)
        draws = self.drawing.draw(record, len(sampled) + count, int(sampled[0].tensors["draw"]))
        draws = replace(draws, seeds=draws.seeds[len(sampled) :])
        return encode_record(self.network_family, record, draws, self.media_limits)

    def augment(
        self, networks: Networks, responses: Sequence[EncodedResponse]
    ) -> tuple[list[EncodedResponse], dict[str, Tensor]]:
        """Computes latents, conditions, noisy latents and targets; see `Modality.augment`."""
        completed = list(responses)
        errors = torch.full((len(responses),), nan)
        completion = Completion(self.network_family, self.output_kind, self.noising, self.embed_prompts)
        waiting = [row for row, one in enumerate(responses) if "noisy" not in one.tensors]
        for rows in group_by_shape(waiting, responses):
            own, errors[rows] = completion.augment(networks, [responses[row] for row in rows])
            for row, one in zip(rows, own, strict=True):
                completed[row] = one
        return completed, {ROUND_TRIP: errors} if self.noising.round_trip else {}

    # -- scoring

    def step_log_probs(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
        """Scores the K levels of every response, which must be complete: [N, K], and a mask that is True everywhere."""
        groups = group_by_shape(range(len(responses)), responses)
        logps = [self._score_alike(network, [responses[row].tensors for row in rows]) for rows in groups]
        together = restore_order(logps, groups)
        return together, torch.ones_like(together, dtype=torch.bool)

    def _score_alike(self, network: nn.Module, tensors: Sequence[Tensors]) -> Tensor:
        """Scores n responses of one shape: [n, K]."""
        device = next(network.parameters()).device
        noisy, wanted, levels = (torch.cat([one[name] for one in tensors]).to(device) for name in _SCORED)  # [R, ...]
        count = len(tensors[0]["timesteps"])
        denoising = self.denoising(network)
        conditions = Conditions([pick(one, "condition") for one in tensors]).repeat(count)
        squares = (denoising.output(noisy, levels, conditions) - wanted).square()
        errors = self._reduce(squares, [one["noised"] for one in conditions.given if "noised" in one])  # [R]
        schedule = self.network_family.schedule
        weights = step_weights(levels, schedule, denoising.prediction, weighting=self.weight, gamma=self.snr_gamma)
        return (-0.5 * weights.float() * errors / count).reshape(len(tensors), count)

    def _reduce(self, squares: Tensor, noised: Sequence[Tensor]) -> Tensor:
        """Sums squared errors [R, ...] up, or averages them, over what got noise: [R]."""
        if not noised:
            return squares.flatten(1).mean(1) if self.reduction == "mean" else squares.flatten(1).sum(1)
        part = torch.stack(list(noised)).to(squares.device).expand_as(squares).flatten(1)
        sums = squares.flatten(1).where(part, 0).sum(1)
        return sums / part.sum(1) if self.reduction == "mean" else sums

    # -- sampling

    def sample_part(
        self, network: nn.Module, records: Sequence[Record], part: Sequence[Request], decoding: DiffusionDecoding
    ) -> list[Generated]:
        """Samples some responses; they are encoded with levels and noise of their own, to be scored as stored ones."""
        family, device = self.network_family, next(network.parameters()).device
        tokens = {one.prompt: family.tokenise(records[one.prompt]) for one in part}
        conditions = self.embed_prompts([tokens[one.prompt] for one in part], self.find_guidance(decoding))
        generators = [seeded(one.seed) for one in part]
        start = draw_noise(generators, family.latent_shape()).to(device)
        levels = sampling_plan(decoding.max_steps, family.schedule.steps, decoding.spacing)
        draw = sample_masked if isinstance(family, MaskedTokens) else sample
        latents = draw(self.denoising(network), conditions, start, levels, eta=decoding.eta, generators=generators)
        outputs = map(family.write, family.to_pixels(latents).float().cpu())
        return [
            Generated(response, self._encode_sampled(records[one.prompt], own, one), None, output=output)
            for one, own, (response, output) in zip(part, latents.cpu(), outputs, strict=True)
        ]

    def _encode_sampled(self, record: Record, latents: Tensor, request: Request) -> EncodedResponse:
        draws = self.drawing.draw(record, request.place + 1, request.draw)
        tokens = choose_tokens(self.network_family, record, draws)
        content = {"latents": latents, "draw": torch.tensor(request.draw)}
        return build_encoded(self.network_family, content, latents.shape, tokens, draws, request.place)


_SCORED = ("noisy", "target", "timesteps")
"""Tensors of a complete encoding that have a row for every timestep."""
