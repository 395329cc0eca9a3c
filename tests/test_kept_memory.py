"""While a run trains on the CPU, what it frees stays with the process; afterwards the machine has it back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign import api

# A process of its own: in one that has computed much, a large tensor may fit into a gap, which is never handed back.
PROBE = """
import json, sys
import torch
from mmalign.hardware import kept_memory

SIZE = 256 * 2**20

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def is_kept():
    tensor = torch.ones(SIZE, dtype=torch.uint8)
    full = resident()
    del tensor
    return full - resident() < SIZE / 2

start, before = resident(), is_kept()
try:
    with kept_memory(torch.device(sys.argv[1])):
        inside, held = [is_kept(), is_kept()], resident() - start > SIZE / 2
        if sys.argv[2:] == ["fail"]:
            raise KeyError
except KeyError:
    pass
print(json.dumps({"before": before, "inside": inside, "held": held, "back": resident() - start < SIZE / 2}))
"""
KEPT = {"before": False, "inside": [True, True], "held": True, "back": True}
NOT_KEPT = {"before": False, "inside": [False, False], "held": False, "back": True}
ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES")


def probe(*arguments: str, **variables: str) -> Any:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ALLOCATOR)}
    command = [sys.executable, "-c", PROBE, *arguments]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


glibc_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")


@glibc_only
def test_freed_memory_stays_inside_and_goes_back_afterwards() -> None:
    assert probe("cpu") == KEPT


@glibc_only
def test_an_error_hands_it_back() -> None:
    assert probe("cpu", "fail") == KEPT


@glibc_only
@pytest.mark.parametrize("name", ["MALLOC_TOP_PAD_", "GLIBC_TUNABLES"])
def test_an_allocator_that_the_user_has_set_up_is_left_alone(name: str) -> None:
    assert probe("cpu", **{name: ""}) == NOT_KEPT


@glibc_only
def test_nothing_is_kept_for_another_device() -> None:
    assert probe("meta") == NOT_KEPT


def test_a_run_trains_with_it_kept(
    toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    run_loop, kept_memory = api.run_loop, api.kept_memory

    @contextmanager
    def watched(device: torch.device) -> Iterator[None]:
        with kept_memory(device):
            seen.append(f"kept on {device.type}")
            yield
        seen.append("handed back")

    monkeypatch.setattr("mmalign.api.kept_memory", watched)
    monkeypatch.setattr("mmalign.api.run_loop", lambda run: (seen.append("trained"), run_loop(run)))
    mmalign.train(write_config(toy_config()))
    assert seen == ["kept on cpu", "trained", "handed back"]
