"""The best throughput of matrix products on this machine, in operations a second.

python benchmarks/peak.py bfloat16
"""

from __future__ import annotations

import sys
import time

import torch

SIZES = (2048, 4096)
REPEATS = 5


def measure_peak(dtype: torch.dtype, sizes: tuple[int, ...] = SIZES, repeats: int = REPEATS) -> float:
    """Returns the best of several products of square matrices."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    best = 0.0
    for size in sizes:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        for _ in range(repeats):
            best = max(best, 2 * size**3 / _time_product(left, right))
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
