"""What the machine is good at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")


def choose_dtype(name: str, device: torch.device, *, adapter: bool) -> torch.dtype:
    """Turns a dtype name into a dtype.

    `auto` is bfloat16 where the hardware multiplies it fast and the network is frozen under an adapter; weights that
    are trained themselves lose small updates in bfloat16, so they are float32.
    """
    if name != "auto":
        return _DTYPES[name]
    return torch.bfloat16 if adapter and has_fast_bfloat16(device) else torch.float32


def find_device() -> torch.device:
    """Returns the device that this process trains on, which is accelerate's choice; starts the processes' group."""
    # PartialState alone does not look at this flag, and would start nccl on a machine whose GPU is not to be used.
    device: torch.device = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).device
    return device


def choose_precision(name: str, dtype: torch.dtype, *, adapter: bool) -> str:
    """Turns a precision name into one of accelerate's.

    `auto` is `bf16` for an adapter on bfloat16 weights: its own weights are float32, and without autocast every
    activation would be turned into float32 and back for them.
    """
    if name != "auto":
        return name
    return "bf16" if adapter and dtype == torch.bfloat16 else "no"


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tells whether matrix products in bfloat16 run on dedicated units of `device`."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return device.type == "mps"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return any(flag in flags for flag in _CPU_FLAGS)


@contextmanager
def flushed_subnormals() -> Iterator[None]:
    """Inside, CPU cores take float32 numbers below 1e-38 for zero, where they can.

    The gradient of a pair that is told apart for good is that small, and a core needs many times as long to compute
    with it. Threads of torch take this over from the thread that starts them; those that run already stay as they are.
    """
    # Older numpy warns if it measures the smallest numbers while they are zero; it measures once.
    for dtype in (np.float32, np.float64):
        np.finfo(dtype)
    before = _flushes_subnormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_subnormals() -> bool:
    return float(torch.tensor(1e-39) * 1) == 0
