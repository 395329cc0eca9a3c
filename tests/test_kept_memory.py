"""While a run trains on the CPU, what it frees stays with the process; afterwards the machine has it back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign import api
from mmalign.hardware import kept_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")

CPU = torch.device("cpu")
SIZE = 256 * 2**20


@pytest.fixture(autouse=True)
def untouched_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def is_kept() -> bool:
    """Frees a large tensor; tells whether the process is as large as with it."""
    tensor = torch.ones(SIZE, dtype=torch.uint8)
    full = resident_bytes()
    del tensor
    return full - resident_bytes() < SIZE / 2


def test_freed_memory_stays_inside_and_goes_back_afterwards() -> None:
    assert not is_kept()
    before = resident_bytes()
    with kept_memory(CPU):
        assert is_kept()
        assert is_kept()
        assert resident_bytes() - before > SIZE / 2
    assert resident_bytes() - before < SIZE / 2


def test_an_error_hands_it_back() -> None:
    before = resident_bytes()
    with pytest.raises(KeyError), kept_memory(CPU):
        assert is_kept()
        raise KeyError
    assert resident_bytes() - before < SIZE / 2


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_user_has_set_up_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    with kept_memory(CPU):
        assert not is_kept()


def test_nothing_is_kept_for_another_device() -> None:
    with kept_memory(torch.device("meta")):
        assert not is_kept()


def test_a_run_trains_with_it_kept(
    toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    run_loop = api.run_loop
    monkeypatch.setattr("mmalign.api.run_loop", lambda run: (seen.append(is_kept()), run_loop(run)))
    mmalign.train(write_config(toy_config()))
    assert seen == [True]
