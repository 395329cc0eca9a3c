"""The modality `diffusion_path`: a response is the path of the sampler, a step is one of its Gaussian moves.

Log-probs are densities of what was drawn, so policy gradients apply: with the group collector and grpo this is DDPO
(sde `ddim`), Flow-GRPO or DanceGRPO. By default they are means over the entries of a latent, which is what the
published code takes and its clip ranges of about 1e-4 are tuned for; `reduction: sum` gives the densities themselves.

Paths are sampled, not stored: a stored image tells nothing of the way to it.

Shapes: B rows that are sampled together, N responses, T trained steps, R rows, one for every trained step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from mmalign import DataError, EncodedResponse, Generated, Record
from mmalign_diffusion.ddim import gaussian_log_prob
from mmalign_diffusion.decoding import DiffusionDecoding
from mmalign_diffusion.denoiser import DenoiserModality, Request
from mmalign_diffusion.families.base import Tensors
from mmalign_diffusion.path import SDE, Stepper
from mmalign_diffusion.path_sampling import PathPlan, Walk, walk
from mmalign_diffusion.prediction import Conditions, Denoising, mark, pick
from mmalign_diffusion.randomness import draw_noise, seeded
from mmalign_diffusion.sampler import sampling_plan


@dataclass(eq=False)
class DiffusionPath(DenoiserModality):
    """Sampler steps as log-probs. The fields are those of `DiffusionPathConfig`, which says what they mean."""

    sde: SDE = "ddim"
    eta: float = 1.0
    window: tuple[int, int] | None = None
    fraction: float = 1.0
    steps_per_pass: int | None = None
    detach_null: bool = False
    shared_noise: bool = False
    reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.stepper

    @cached_property
    def stepper(self) -> Stepper:
        """The distribution of a step."""
        return Stepper(self.network_family.schedule, self.sde, self.eta, self.output_kind)

    def encoding_settings(self) -> tuple[Any, ...]:
        """None: nothing stored is encoded."""
        return ()

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Checks the prompt; refuses stored responses, whose paths are not known."""
        self.network_family.tokenise(record)
        for response in record.responses:
            raise DataError(
                f"record {record.id!r}, response {response.rid!r}: modality diffusion_path scores only paths that it "
                "has sampled; for stored responses use `modality: {name: diffusion}`"
            )
        return []

    def render(self, encoded: EncodedResponse) -> list[tuple[str, bool]]:
        """Lists the levels between which the trained steps go."""
        levels = zip(encoded.tensors["levels"].tolist(), encoded.tensors["following"].tolist(), strict=True)
        return [(f"{now} -> {then} ", True) for now, then in levels]

    # -- scoring

    def step_log_probs(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
        """Scores every trained step of every path under the same guidance as it was sampled with: [N, T] and mask."""
        rows: list[Tensor] = []
        for guidance, group in groupby(responses, key=lambda one: float(one.tensors["guidance"])):
            rows += self._score(network, [one.tensors for one in group], guidance)
        logps = pad_sequence(rows, batch_first=True)
        steps = torch.tensor([one.steps for one in responses], device=logps.device)
        return logps, torch.arange(logps.shape[1], device=logps.device) < steps[:, None]

    def _score(self, network: nn.Module, tensors: Sequence[Tensors], guidance: float) -> list[Tensor]:
        """Scores the paths of n responses: the log-probs [T] of each."""
        device = next(network.parameters()).device
        steps = [len(one["levels"]) for one in tensors]
        repeated = [one for one, count in zip(tensors, steps, strict=True) for _ in range(count)]  # R of them
        null = [] if guidance == 1 else [pick(one, "null") for one in repeated]
        conditions = Conditions([pick(one, "condition") for one in repeated], null, guidance)
        rows = [torch.cat([one[name] for one in tensors]).to(device) for name in _STEPS]
        rows.append(torch.stack([one["second"] for one in repeated]).to(device))
        denoising = replace(self.denoising(network), detach_null=self.detach_null)
        if self.steps_per_pass is None:
            return list(torch.split(self._score_rows(denoising, conditions, *rows), steps))
        parts = torch.split(torch.arange(len(repeated)), self.steps_per_pass)
        logps = [
            checkpoint(
                self._score_rows,
                denoising,
                conditions.select(part),
                *(one[part.to(device)] for one in rows),
                use_reentrant=False,
            )
            for part in parts
        ]
        return list(torch.split(torch.cat(logps), steps))

    def _score_rows(self, denoising: Denoising, conditions: Conditions, *rows: Tensor) -> Tensor:
        """Scores steps: [R]."""
        x, following_x, levels, following, second = rows
        output = denoising.output(x, levels, conditions)
        mean, std = self.stepper.distribution(output, x, levels, following, second)
        return gaussian_log_prob(following_x, mean, self.temperature * std, self.reduction).float()

    # -- sampling

    def sample_part(
        self, network: nn.Module, records: Sequence[Record], part: Sequence[Request], decoding: DiffusionDecoding
    ) -> list[Generated]:
        """Samples some paths and records their trained steps with the log-probs that they were drawn with."""
        family, device = self.network_family, next(network.parameters()).device
        tokens = {one.prompt: family.tokenise(records[one.prompt]) for one in part}
        guidance = self.find_guidance(decoding)
        conditions = self.embed_prompts([tokens[one.prompt] for one in part], guidance)
        levels = sampling_plan(decoding.max_steps, family.schedule.steps, decoding.spacing)
        plan = PathPlan.build(levels, self.window, self.fraction, decoding.temperature, self.reduction)
        starts = [seeded(one.group if self.shared_noise else one.seed) for one in part]
        generators = [seeded(one.seed + 1) for one in part]
        start = draw_noise(starts, family.latent_shape()).to(device)
        walked = walk(self.denoising(network), self.stepper, plan, start, conditions, generators)
        outputs = family.to_pixels(walked.latents).float().cpu()
        return [
            Generated(response, encoded, logps, output=output)
            for (response, output), (encoded, logps) in zip(
                map(family.write, outputs), self._encode(walked, conditions, plan), strict=True
            )
        ]

    def _encode(self, walked: Walk, conditions: Conditions, plan: PathPlan) -> list[tuple[EncodedResponse, Tensor]]:
        positions = self.network_family.positions(self.network_family.latent_shape())
        encoded = []
        for row, steps in enumerate(walked.trained):
            tensors = {
                "x": walked.x[row, steps],
                "following_x": walked.x[row, [step + 1 for step in steps]],
                "levels": plan.levels[steps],
                "following": plan.levels[[step + 1 for step in steps]],
                "second": plan.levels[1],
                "guidance": torch.tensor(conditions.guidance, dtype=torch.float64),
                **mark(conditions.given[row], "condition"),
                **(mark(conditions.null[row], "null") if conditions.null else {}),
            }
            one = EncodedResponse(tensors, steps=len(steps), size=len(steps) * positions)
            encoded.append((one, walked.logps[row, steps]))
        return encoded


_STEPS = ("x", "following_x", "levels", "following")
"""Tensors of an encoded path that have a row for every trained step."""
