"""Atomic, verified checkpoints: a directory is either complete or not there.

    root/step-00000010/<group>.safetensors   one file for each group of tensors
                      state.json             everything that is not a tensor
                      manifest.json          format, step, size and SHA-256 of the files above

A checkpoint is written beside its place and renamed into it after all bytes are on the disk, so that a run killed at
any moment leaves either the old or the new one. Nothing is pickled: a checkpoint cannot run code.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmalign.errors import CheckpointError

logger = logging.getLogger(__name__)

FORMAT = 1
"""Version of the layout; a checkpoint of another version is refused."""

_MANIFEST = "manifest.json"
_STATE = "state.json"
# While a checkpoint of the same step is replaced, the old one waits under a second name.
_NAME = re.compile(r"step-(\d{8,})(\.replaced)?")
_GROUP = re.compile(r"[A-Za-z0-9_-]+")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        step: finished optimiser steps.
        tensors: groups of named tensors, on the CPU, bit for bit as they were saved.
        state: JSON values; tuples have become lists, and keys strings.
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class SaveClock:
    """Says when the next checkpoint is due by the time.

    Args:
        minutes: from one checkpoint, or the start, to the next; 0 for none.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """True once the time is over."""
        return self._seconds > 0 and time.monotonic() - self._last >= self._seconds

    def restart(self) -> None:
        """Begins anew, after a checkpoint."""
        self._last = time.monotonic()


def save_checkpoint(
    root: Path, step: int, *, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Writes `root/step-<step>` and removes older checkpoints.

    Args:
        root: folder of the run's checkpoints; made if missing.
        step: finished optimiser steps, at least 0; a checkpoint of the same step is replaced.
        tensors: groups of named tensors, on any device, of any layout in memory; a group may be empty.
        state: JSON values.
        keep: how many checkpoints up to `step` stay, at least 1. Later ones are another branch of the run and stay.

    Returns:
        the checkpoint's directory.

    Raises:
        CheckpointError: `state` is no JSON, or the disk refuses.
        ValueError: a negative step, a `keep` below 1, or a group that is no plain file name.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step {step}, keep {keep}: expected a step of at least 0 and a keep of at least 1")
    target = root / f"step-{step:08d}"
    partial = target.with_name(f"{target.name}.tmp-{os.getpid()}")
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        partial.mkdir()
        _write_files(partial, step, tensors, state)
        _rename_into_place(partial, target)
        _prune(root, step, keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{target}: cannot be written: {error}") from error
    return target


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint after verifying every file.

    Raises:
        CheckpointError: names the file and what is wrong with it: missing, truncated, changed, or of another format.
    """
    manifest = verify_checkpoint(path)
    document = json.loads((path / _STATE).read_text(encoding="utf-8"))
    if document["step"] != manifest["step"]:
        raise CheckpointError(f"{path / _MANIFEST}: says step {manifest['step']}, {_STATE} says {document['step']}")
    groups = [name.removesuffix(".safetensors") for name in manifest["files"] if name.endswith(".safetensors")]
    tensors = {group: load_file(path / f"{group}.safetensors") for group in groups}
    return Checkpoint(step=document["step"], tensors=tensors, state=document["state"])


def find_latest(root: Path) -> Path | None:
    """Returns the newest checkpoint in `root` that verifies; damaged ones are skipped with a warning."""
    for _, path in _iter_newest_first(root):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            logger.warning("skipped a damaged checkpoint: %s", error)
            continue
        return path
    return None


def verify_checkpoint(path: Path) -> dict[str, Any]:
    """Compares every file of a checkpoint with its manifest, without loading tensors.

    Returns:
        the manifest: `format`, `step`, and `files`, a mapping of names to `size` and `sha256`.

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    manifest = _read_manifest(path)
    for name, expected in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing")
        size = file.stat().st_size
        if size != expected["size"]:
            raise CheckpointError(f"{file}: truncated or extended: {size} bytes, the manifest says {expected['size']}")
        if _compute_sha256(file) != expected["sha256"]:
            raise CheckpointError(f"{file}: damaged: its SHA-256 is not the one in the manifest")
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / _MANIFEST
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint")
    if not file.is_file():
        raise CheckpointError(f"{file}: missing")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format"]
        complete = _STATE in manifest["files"] and all({"size", "sha256"} <= set(v) for v in manifest["files"].values())
        complete = complete and isinstance(manifest["step"], int)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{file}: damaged: not a manifest") from None
    if version != FORMAT:
        raise CheckpointError(f"{file}: format {version!r}, this version of mmalign reads format {FORMAT}")
    if not complete:
        raise CheckpointError(f"{file}: damaged: not a manifest")
    return dict(manifest)


def _write_files(
    directory: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    for group, named in tensors.items():
        if not _GROUP.fullmatch(group):
            raise ValueError(f"tensor group {group!r}: expected letters, digits, _ or -")
        save_file(_detached_copies(named), directory / f"{group}.safetensors")
    _write_json(directory / _STATE, {"step": step, "state": dict(state)})
    files = {
        path.name: {"size": path.stat().st_size, "sha256": _compute_sha256(path)}
        for path in sorted(directory.iterdir())
    }
    _write_json(directory / _MANIFEST, {"format": FORMAT, "step": step, "files": files})
    for path in directory.iterdir():
        _sync(path)
    _sync(directory)


def _detached_copies(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The file format refuses views and tensors that share memory, so each gets memory of its own.
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in named.items()}


def _write_json(path: Path, value: Any) -> None:
    try:
        text = json.dumps(value, indent=1)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the state is not JSON: {error}; a plugin's state must be JSON values") from None
    path.write_text(text, encoding="utf-8")


def _rename_into_place(partial: Path, target: Path) -> None:
    replaced = target.with_name(f"{target.name}.replaced")
    if target.exists():
        _remove(replaced)
        target.rename(replaced)
    partial.rename(target)
    _sync(target.parent)
    _remove(replaced)


def _prune(root: Path, step: int, keep: int) -> None:
    older = [path for found, path in _iter_newest_first(root) if found <= step]
    for path in older[keep:]:
        _remove(path)


def _remove(path: Path) -> None:
    """Removes a checkpoint so that a kill half-way leaves nothing that looks like one."""
    if not path.exists():
        return
    doomed = path.with_name(f"{path.name}.tmp-removed")
    path.rename(doomed)
    shutil.rmtree(doomed)


def _remove_leftovers(root: Path) -> None:
    for path in root.glob("step-*.tmp-*"):
        if not _is_written(path.name.rpartition("-")[2]):
            shutil.rmtree(path, ignore_errors=True)


def _is_written(owner: str) -> bool:
    """Returns whether another process that lives is writing a partial folder, which is named by its pid."""
    if not owner.isdigit() or int(owner) == os.getpid():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _iter_newest_first(root: Path) -> Iterator[tuple[int, Path]]:
    names = [(match, path) for path in root.glob("step-*") if (match := _NAME.fullmatch(path.name)) and path.is_dir()]
    found = [(int(match.group(1)), path) for match, path in names]
    # Of one step, "step-1" is newer than "step-1.replaced".
    yield from sorted(found, key=lambda item: (-item[0], item[1].name))


def _compute_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Waits until a file's bytes, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
