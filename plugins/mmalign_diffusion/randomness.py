"""Random numbers that belong to one record or response, so that batches and devices have no say in them.

All start from torch's global generator, which the loop seeds every round, or from the content of a record. They are
drawn on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from mmalign import Record

_BOUND = 2**62


def draw_seed(generator: Generator | None = None) -> int:
    """Draws a seed; without a generator from torch's global one."""
    return int(torch.randint(_BOUND, (), generator=generator))


def digest_seed(*parts: object) -> int:
    """Turns what identifies something into a seed."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") % _BOUND


def record_seed(record: Record) -> int:
    """Returns a seed that depends on the record's id and prompt only."""
    return digest_seed(record.model_dump_json(include={"id", "prompt"}))


def seeded(seed: int) -> Generator:
    """Returns a generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def draw_noise(generators: Sequence[Generator], shape: Sequence[int]) -> Tensor:
    """Draws standard normal numbers [B, *shape], a row from each generator, float32, on the CPU."""
    return torch.stack([torch.randn(tuple(shape), generator=one) for one in generators])
