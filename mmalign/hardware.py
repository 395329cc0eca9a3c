"""What the machine is good at, and how it is set up while a run trains."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ALLOCATOR_MESSAGES = ("out of memory", "can't allocate memory", "not enough memory", "cublas_status_alloc_failed")
_CPU_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")

# Names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_KEPT = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 64 * 2**20}
# Where glibc's own thresholds end up in a process that has freed large tensors: a value set once moves no more.
_HANDED_BACK = {_M_MMAP_MAX: 2**16, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26, _M_TOP_PAD: 2**17}


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
    """Returns whether matrix products in bfloat16 run on dedicated units of `device`."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return device.type == "mps"
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return any(flag in flags for flag in _CPU_FLAGS)


def memory_in_use(device: torch.device) -> int:
    """Returns the bytes that tensors take on an accelerator, or this process in the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


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


@contextmanager
def kept_memory(device: torch.device) -> Iterator[None]:
    """Inside, the CPU memory that a process frees stays with it, for its next tensors; outside, it is handed back.

    glibc maps every large tensor anew and the kernel clears its pages each time, up to a tenth of a training step.
    Other C libraries are left alone, and so is one that the environment has set up (`MALLOC_...`, `GLIBC_TUNABLES`).
    Once a request of the process has failed, glibc maps large tensors one by one again, whatever is asked of it.

    Args:
        device: where the tensors are; nothing is kept unless that is the CPU.
    """
    allocator = _find_glibc() if device.type == "cpu" else None
    if allocator is None:
        yield
        return
    _set_up(allocator, _KEPT)
    try:
        yield
    finally:
        _set_up(allocator, _HANDED_BACK)
        allocator.malloc_trim(0)


def _find_glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None


def _set_up(allocator: ctypes.CDLL, settings: dict[int, int]) -> None:
    for name, value in settings.items():
        allocator.mallopt(name, value)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an allocation failed, on any device.

    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"))
    True
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(message in text for message in _ALLOCATOR_MESSAGES)
