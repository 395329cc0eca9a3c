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

Method = Literal["dpo", "kto", "reward_model", "grpo"]

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
        lora: a low-rank adapter on bfloat16 weights, or all weights in float32 (on CUDA in bfloat16 autocast).
        system: `mmalign`, `mmalign-padded`, `trl`, `trl-tuned`, `trl-precomputed` or `trl-liger`.
        steps: measured optimiser steps, after one warm-up step.
        prompts: prompts a step.
    """

    method: Method
    mix: str
    lora: bool
    system: str
    steps: int
    prompts: int


@dataclass(frozen=True)
class Measurement:
    """What came out.

    Attributes:
        seconds: of the median measured step.
        tokens: unpadded tokens of prompts and responses a step, each prompt counted with each of its responses.
        responses: a step.
        losses: of every step, the warm-up step first.
        peak_bytes: highest resident memory of the process, or of the CUDA allocator.
        generation_seconds: of the median step, the part spent on sampling.
    """

    seconds: float
    tokens: float
    responses: int
    losses: list[float]
    peak_bytes: int
    generation_seconds: float = 0.0


def build_measurement(
    case: Case, ends: Sequence[float], losses: Sequence[float], tokens: float, generation: Sequence[float] = ()
) -> Measurement:
    """Builds a measurement from the times at which the steps ended.

    Args:
        ends: of all steps, the warm-up step first, in seconds.
        losses: of all steps.
        tokens: of all measured steps together.
        generation: seconds spent on sampling in every step, the warm-up step first.
    """
    if len(ends) != case.steps + 1:
        raise ValueError(f"{len(ends)} steps ended; expected a warm-up step and {case.steps} more")
    return Measurement(
        seconds=statistics.median(end - start for start, end in pairwise(ends)),
        tokens=tokens / case.steps,
        responses=case.prompts * (GROUP_SIZE if case.method == "grpo" else 2),
        losses=list(losses),
        peak_bytes=peak_bytes(),
        generation_seconds=statistics.median(generation[1:]) if len(generation) > 1 else 0.0,
    )


def peak_bytes() -> int:
    """Returns the highest memory use so far: of the CUDA allocator, or resident where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
