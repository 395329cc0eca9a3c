"""The best throughput of matrix products on this machine, in operations a second.

python benchmarks/peak.py bfloat16

Products grow until the next would not fit into the budget: hardware without units for a dtype can be a hundred times
slower in it, and one product of the size that fills a GPU would take minutes there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import torch

SIZES = (256, 512, 1024, 2048, 4096)
REPEATS = 5
BUDGET = 10.0
"""Seconds for everything, but at least one product is measured."""


def measure_peak(
    dtype: torch.dtype, sizes: Sequence[int] = SIZES, repeats: int = REPEATS, budget: float = BUDGET
) -> float:
    """Returns the best of several products of square matrices, the largest that fit into `budget` seconds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start, best = time.perf_counter(), 0.0
    for size in sizes:
        expected = 2 * size**3 / best if best else 0.0
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(repeats):
            if best and time.perf_counter() - start + expected > budget:
                return best
            seconds = _time_product(left, right)
            best = max(best, 2 * size**3 / seconds)
            expected = seconds
        sys.stderr.write(f"{dtype} {size} x {size}: {best / 1e9:.1f} GFLOP/s so far\n")
    return best


def _time_product(left: torch.Tensor, right: torch.Tensor) -> float:
    start = _now()
    left @ right
    return _now() - start


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    sys.stdout.write(f"{measure_peak(getattr(torch, sys.argv[1]))}\n")
