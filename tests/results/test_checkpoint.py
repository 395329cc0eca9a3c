"""Checkpoints: bit-exact round trips, refusal of every kind of damage, and survival of kills at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmalign import CheckpointError
from mmalign.results.checkpoint import find_latest, load_checkpoint, save_checkpoint

WEIGHTS = {"policy": {"w": torch.arange(6.0).view(2, 3)}}


def save(root: Path, step: int, keep: int = 2) -> Path:
    return save_checkpoint(root, step, tensors=WEIGHTS, state={"round": step}, keep=keep)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def tensor_cases() -> dict[str, torch.Tensor]:
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    return {
        "float32": base,
        "same_memory": base,
        "view": base[1:3],
        "transposed": base.T,
        "expanded": base[:1].expand(5, 6),
        "bfloat16": base.to(torch.bfloat16),
        "float16": base.half(),
        "float64": base.double(),
        "int64": torch.tensor([-(2**63), 2**63 - 1]),
        "bool": base > 0,
        "scalar": torch.tensor(7.5),
        "scalar_int": torch.tensor(2**53 + 1),
        "empty": torch.zeros(0, 3),
        "not_finite": torch.tensor([float("nan"), float("inf"), -0.0]),
        "parameter": torch.nn.Parameter(base.clone()),
    }


@pytest.mark.parametrize("name", tensor_cases())
def test_tensors_return_bit_for_bit(tmp_path: Path, name: str) -> None:
    saved = tensor_cases()[name].detach()
    path = save_checkpoint(tmp_path, 3, tensors={"policy": tensor_cases(), "optimiser": {}}, state={})
    loaded = load_checkpoint(path).tensors["policy"][name]
    assert (loaded.dtype, loaded.shape) == (saved.dtype, saved.shape)
    # Bytes, since NaN is not equal to itself and -0.0 is equal to 0.0.
    assert bytes(loaded.contiguous().view(-1).view(torch.uint8)) == bytes(saved.contiguous().view(-1).view(torch.uint8))


def test_state_and_empty_groups_return(tmp_path: Path) -> None:
    state = {"position": 2**60, "loss": 0.1, "nested": {"words": ["é", None, True]}}
    checkpoint = load_checkpoint(save_checkpoint(tmp_path, 12, tensors={"optimiser": {}}, state=state))
    assert checkpoint.step == 12
    assert checkpoint.tensors == {"optimiser": {}}
    assert checkpoint.state == state


def test_the_directory_is_named_by_step(tmp_path: Path) -> None:
    assert save(tmp_path, 10) == tmp_path / "step-00000010"


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10, 11):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000010", "step-00000011"]
    assert find_latest(tmp_path) == tmp_path / "step-00000011"


def test_a_save_never_removes_itself_nor_later_ones(tmp_path: Path) -> None:
    save(tmp_path, 20, keep=1)
    save(tmp_path, 10, keep=1)
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, tensors=WEIGHTS, state={"version": "old"})
    path = save_checkpoint(tmp_path, 5, tensors={}, state={"version": "new"})
    assert load_checkpoint(path).state == {"version": "new"}
    assert names(tmp_path) == ["step-00000005"]


def test_the_replaced_checkpoint_counts_until_the_new_one_is_there(tmp_path: Path) -> None:
    old = save(tmp_path, 5)
    old.rename(old.with_name("step-00000005.replaced"))
    latest = find_latest(tmp_path)
    assert latest is not None
    assert load_checkpoint(latest).state == {"round": 5}
    save(tmp_path, 5)
    assert names(tmp_path) == ["step-00000005"]


def test_leftovers_of_a_killed_save_are_ignored_then_removed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    leftover = tmp_path / "step-00000002.tmp-123"
    leftover.mkdir()
    (leftover / "policy.safetensors").write_bytes(b"half")
    assert find_latest(tmp_path) == tmp_path / "step-00000001"
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert find_latest(tmp_path) is None
    assert find_latest(tmp_path / "missing") is None


def flip_byte(file: Path, position: int) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def change_manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file": (lambda path: (path / "policy.safetensors").unlink(), "policy.safetensors: missing"),
    "no state": (lambda path: (path / "state.json").unlink(), "state.json: missing"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json: missing"),
    "truncated": (lambda path: truncate(path / "policy.safetensors"), "policy.safetensors: truncated"),
    "emptied": (lambda path: (path / "state.json").write_bytes(b""), "state.json: truncated"),
    "flipped": (lambda path: flip_byte(path / "policy.safetensors", -1), "policy.safetensors: damaged"),
    "flipped state": (lambda path: flip_byte(path / "state.json", 12), "state.json: damaged"),
    "manifest cut": (lambda path: truncate(path / "manifest.json"), "manifest.json: damaged"),
    "manifest list": (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json: damaged"),
    "manifest without files": (lambda path: change_manifest(path, files={}), "manifest.json: damaged"),
    "other format": (lambda path: change_manifest(path, format=99), "manifest.json: format 99"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    damage, message = DAMAGE[kind]
    older, newer = save(tmp_path, 1), save(tmp_path, 2)
    damage(newer)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(newer)
    assert find_latest(tmp_path) == older
    assert message.partition(":")[0] in caplog.text


def test_a_wrong_step_in_the_manifest_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    change_manifest(path, step=8)
    with pytest.raises(CheckpointError, match="says step 8"):
        load_checkpoint(path)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "step-00000001")


def test_a_state_that_is_not_json_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not JSON"):
        save_checkpoint(tmp_path, 1, tensors=WEIGHTS, state={"plugins": {"mine": {1, 2}}})
    save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000002"]


def test_a_disk_that_refuses_is_reported(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "checkpoints", 1)


@pytest.mark.parametrize(("step", "keep", "group"), [(-1, 1, "policy"), (1, 0, "policy"), (1, 1, "../policy")])
def test_wrong_arguments_are_refused(tmp_path: Path, step: int, keep: int, group: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        save_checkpoint(tmp_path, step, tensors={group: {}}, state={}, keep=keep)


SAVE_LOOP = """
import sys
from pathlib import Path
import torch
from mmalign.results.checkpoint import save_checkpoint
root, step = Path(sys.argv[1]), 1
print("ready", flush=True)
while True:
    # Every step is saved twice, so that kills also meet a replacement.
    for _ in range(2):
        weights = {"w": torch.full((50_000,), float(step))}
        save_checkpoint(root, step, tensors={"policy": weights}, state={"round": step}, keep=1)
    print(step, flush=True)
    step += 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_any_moment_leaves_a_complete_checkpoint(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-c", SAVE_LOOP, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as loop:
        assert loop.stdout is not None
        loop.stdout.readline()
        loop.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.0, 0.3))
        loop.send_signal(signal.SIGKILL)
        reported = [1, *(int(line) for line in loop.stdout.read().split())]
    latest = find_latest(tmp_path)
    assert latest is not None
    checkpoint = load_checkpoint(latest)
    assert checkpoint.step >= reported[-1]
    assert checkpoint.state == {"round": checkpoint.step}
    assert bool((checkpoint.tensors["policy"]["w"] == checkpoint.step).all())
