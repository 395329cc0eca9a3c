"""What of this installation and machine decides whether mmalign works, and how fast: the report of `mmalign doctor`."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

import psutil
import torch
from packaging.requirements import Requirement

from mmalign.hardware import has_fast_bfloat16
from mmalign.plugins.registry import Registry
from mmalign.references.folders import cache_root, iter_cache_folders, measure_cache
from mmalign.versions import installed_versions

DISTRIBUTION = "mmalign"

VARIABLES = (
    *("MMALIGN_CACHE", "MMALIGN_PLUGINS", "MMALIGN_STRICT_PLUGINS"),
    *("HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_TOKEN", "TRANSFORMERS_OFFLINE"),
    *("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU", "PYTORCH_CUDA_ALLOC_CONF"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "OPENAI_API_KEY", "WANDB_API_KEY"),
)
"""Environment variables that change what a run does or how fast it is."""

_SECRET = ("TOKEN", "KEY", "PROXY")
_SIZE = 512
_BUDGET = 0.3
"""Seconds for each dtype, after a first product that warms up."""


def diagnose(registry: Registry) -> dict[str, dict[str, Any]]:
    """Collects the report, by section, as JSON values; takes about a second."""
    return {
        "versions": {"python": platform.python_version(), "system": platform.platform(), **installed_versions()},
        "machine": describe_machine(),
        "devices": dict(describe_devices()),
        "plugins": {
            info.name: f"{info.status}{info.error and f': {info.error}'}" for info in registry.plugin_set.infos
        },
        "extras": describe_extras(),
        "cache": {
            "folder": str(cache_root()),
            **{one.name: f"{measure_cache(one) / 2**20:.1f} MiB" for one in iter_cache_folders()},
        },
        "environment": {name: _mask(name, os.environ[name]) for name in VARIABLES if name in os.environ},
    }


def describe_machine() -> dict[str, Any]:
    """Describes processor and memory."""
    memory = psutil.virtual_memory()
    return {
        "cores": os.cpu_count() or 0,
        "threads of torch": torch.get_num_threads(),
        "vector units": torch.backends.cpu.get_cpu_capability(),
        "memory": _gib(memory.total),
        "memory free": _gib(memory.available),
    }


def describe_devices() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields every device with its memory and the speed of matrix products; the CPU comes last."""
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        own = {"name": torch.cuda.get_device_name(index), "memory": _gib(total), "memory free": _gib(free)}
        yield f"cuda:{index}", own | _measure_device(torch.device("cuda", index))
    if torch.backends.mps.is_available():
        yield "mps", _measure_device(torch.device("mps"))
    yield "cpu", {"name": _name_processor()} | _measure_device(torch.device("cpu"))


def _name_processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _measure_device(device: torch.device) -> dict[str, Any]:
    speeds = {name: measure_products(device, getattr(torch, name)) for name in ("float32", "bfloat16")}
    rows: dict[str, Any] = {f"{name} GFLOP/s": round(speed, 1) for name, speed in speeds.items()}
    return rows | {"bfloat16 units": has_fast_bfloat16(device)}


def measure_products(device: torch.device, dtype: torch.dtype) -> float:
    """Measures products of square matrices; returns the GFLOP/s of the fastest, which no other program disturbed.

    On a CPU the matrices are small enough for one that has no units for `dtype` and makes 1 GFLOP/s.
    """
    size = 4 * _SIZE if device.type != "cpu" else _SIZE
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    wait: Callable[[], None] = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(
        device.type, lambda: None
    )
    _ = matrix @ matrix
    wait()
    times, end = [float("inf")], time.perf_counter() + _BUDGET
    while time.perf_counter() < end:
        start = time.perf_counter()
        _ = matrix @ matrix
        wait()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def describe_extras() -> dict[str, str]:
    """Says of every extra whether all of it is installed, else what is missing and the command that installs it."""
    try:
        extras = metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return {}
    return {extra: _describe_extra(extra) for extra in extras if extra not in ("all", "dev")}


def _describe_extra(extra: str) -> str:
    missing = sorted({str(one.name) for one in _iter_requirements(extra) if not _is_met(one)})
    return f'missing {", ".join(missing)}; pip install "{DISTRIBUTION}[{extra}]"' if missing else "installed"


def _iter_requirements(extra: str) -> Iterator[Requirement]:
    """Yields what an extra asks for, beside what mmalign needs anyway."""
    for text in requires(DISTRIBUTION) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or not marker.evaluate({"extra": extra}):
            continue
        if requirement.name == DISTRIBUTION:
            for other in requirement.extras:
                yield from _iter_requirements(other)
        else:
            yield requirement


def _is_met(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _mask(name: str, value: str) -> str:
    # Proxies may hold a password, too.
    return "set" if any(word in name for word in _SECRET) else value
