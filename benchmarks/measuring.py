"""What is measured, and how: one case, one process, one JSON line.

A case is a method, a mix of lengths, what is trained, and a system with its options. A measurement runs one warm-up
step and then `steps` more; a step lasts from the end of the one before to its own end, so its time holds everything:
reading, encoding, the reference, both passes, the optimiser and logging.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from arithmetic import Network, Step, count_operations

from mmalign.hardware import choose_dtype, find_device

Method = Literal["dpo", "kto", "reward_model", "grpo"]

SYSTEMS = ("trl", "trl-tuned", "trl-precomputed", "trl-liger", "mmalign", "mmalign-one-pass", "mmalign-padded")

GROUP_SIZE = 8
RESPONSE_STEPS = 48
LORA_RANK, LORA_ALPHA = 16, 32
LEARNING_RATE = 1e-5


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        method: what is trained for.
        mix: lengths of prompts and responses; a key of `workloads.MIXES`.
        lora: a low-rank adapter on weights in `training_dtype`, or all weights in float32 (on CUDA in bfloat16
            autocast).
        system: one of `SYSTEMS`.
        steps: measured optimiser steps, after one warm-up step.
        prompts: prompts a step.
    """

    method: Method
    mix: str
    lora: bool
    system: str
    steps: int
    prompts: int


def training_dtype(*, lora: bool) -> torch.dtype:
    """Returns the dtype of the frozen weights that mmalign itself would choose for a case on this machine."""
    return choose_dtype("auto", find_device(), adapter=lora)


@dataclass(frozen=True)
class Trace:
    """What a system tells of its run.

    Attributes:
        ends: when every step ended, the warm-up step first, in seconds.
        losses: of all steps.
        tokens: unpadded tokens of prompts and responses that the system read in the measured steps, each prompt counted
            with each of its responses.
        generation: seconds spent on sampling in every step; empty offline.
        sampled: lengths of prompts and sampled responses of every step; empty offline.
    """

    ends: Sequence[float]
    losses: Sequence[float]
    tokens: float
    generation: Sequence[float] = ()
    sampled: Sequence[Step] = ()


@dataclass(frozen=True)
class Measurement:
    """What came out.

    Attributes:
        seconds: of the median measured step.
        tokens: a step; see `Trace`.
        responses: a step.
        losses: of every step, the warm-up step first.
        peak_bytes: highest resident memory of the process, or of the CUDA allocator.
        generation_seconds: of the median step, the part spent on sampling.
        operations: useful ones of a step, a mean over the measured steps; see `arithmetic`.
    """

    seconds: float
    tokens: float
    responses: int
    losses: list[float]
    peak_bytes: int
    generation_seconds: float = 0.0
    operations: float = 0.0


def build_measurement(
    case: Case, trace: Trace, network: Network | None = None, stored: Sequence[Step] = ()
) -> Measurement:
    """Builds a measurement from what a system tells.

    Args:
        network: sizes of the model; without them useful operations are not counted.
        stored: offline, the lengths of every step's rows.
    """
    if len(trace.ends) != case.steps + 1:
        raise ValueError(f"{len(trace.ends)} steps ended; expected a warm-up step and {case.steps} more")
    steps = (trace.sampled or stored)[1:]
    return Measurement(
        seconds=statistics.median(end - start for start, end in pairwise(trace.ends)),
        tokens=trace.tokens / case.steps,
        responses=case.prompts * (GROUP_SIZE if case.method == "grpo" else 2),
        losses=list(trace.losses),
        peak_bytes=peak_bytes(),
        generation_seconds=statistics.median(trace.generation[1:]) if trace.generation else 0.0,
        operations=statistics.mean(count_operations(case.method, network, step) for step in steps) if network else 0.0,
    )


def peak_bytes() -> int:
    """Returns the highest memory use so far: of the CUDA allocator, or resident where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def start_score_head(weight: torch.Tensor) -> None:
    """Gives a reward model's score head [1, D] the same weights in every system."""
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / (weight.shape[1] + 1)
    with torch.no_grad():
        weight.copy_(drawn)
