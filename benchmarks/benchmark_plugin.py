"""A plugin for measuring: sampling is timed and never ends early, and reward models start from a known score head."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from arithmetic import Step, group_lengths
from measuring import start_score_head

from mmalign import Batch, Decoding, Engine, EngineSpec, Generated, Modality, Record, hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mmalign.run import Run


@dataclass
class FullLength(Decoding):
    """Samples without ending, so that all responses are of the same length in every system."""

    end_ids: frozenset[int] = frozenset()

    def adjust(self, logits: Tensor, generated: Tensor) -> Tensor:
        """Rules the end tokens out of logits [N, V]."""
        return logits.index_fill(-1, torch.tensor(sorted(self.end_ids), device=logits.device), -torch.inf)


class TimedEngine(Engine):
    """Samples in this process, as `hf` does.

    Attributes:
        seconds: of every call.
        sampled: lengths of prompts and responses of every call.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.sampled: list[Step] = []

    def generate(
        self, modality: Modality, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples responses of `decoding.max_steps` tokens; see `Engine.generate`."""
        endless = FullLength(decoding.temperature, decoding.max_steps, modality.end_ids)
        start = time.perf_counter()
        groups = modality.generate(network, records, endless, count)
        # The responses are on the CPU, so a GPU has done its work.
        self.seconds.append(time.perf_counter() - start)
        self.sampled.append(group_lengths(_lengths(one) for group in groups for one in group))
        return groups


@hookimpl
def register_engines() -> list[EngineSpec]:
    """Announces the engine."""
    return [EngineSpec(name="timed", summary="Times sampling.", target="benchmark_plugin:TimedEngine")]


@hookimpl
def on_step_starting(run: Run, batch: Batch) -> None:
    """Starts the score head before the first step."""
    if run.step == 0 and len(run.policy.heads):
        start_score_head(run.policy.heads["scores"].weight)


def _lengths(one: Generated) -> tuple[tuple[int, ...], int, int]:
    prompt = tuple(one.encoded.tensors["prompt_ids"].tolist())
    return prompt, len(prompt), one.encoded.steps
