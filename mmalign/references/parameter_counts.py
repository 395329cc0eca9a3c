"""How many parameters a network has, remembered between commands.

Counting them builds the network without weights, and for that alone transformers imports its modelling code, seconds of
work that the answer to `mmalign check` would wait for each time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mmalign.references.folders import cache_folder

Counts = tuple[int, int]
CountsT = TypeVar("CountsT", bound=Counts | None)

_LIBRARIES = ("mmalign", "torch", "transformers", "diffusers", "peft")


def remember_counts(facts: Sequence[str], count: Callable[[], CountsT]) -> CountsT | Counts:
    """Returns what `count` returned for the same facts and versions of the libraries before, or calls it.

    Args:
        facts: everything that the counts depend on, e.g. the text of the network's configuration.
        count: returns (all, trained) parameters, or None; neither that nor an error is remembered.
    """
    key = hashlib.sha256(json.dumps([*facts, *map(_version, _LIBRARIES)]).encode()).hexdigest()
    try:
        file = cache_folder("parameter_counts") / f"{key[:32]}.json"
    # A cache that cannot be made costs time, and nothing else.
    except OSError:
        return count()
    if known := _read(file):
        return known
    counted = count()
    if counted is not None:
        _write(file, counted)
    return counted


def _read(file: Path) -> Counts | None:
    try:
        every, trained = json.loads(file.read_text(encoding="utf-8"))
        return int(every), int(trained)
    except (OSError, ValueError, TypeError):
        return None


def _write(file: Path, counts: Counts) -> None:
    unfinished = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
    try:
        unfinished.write_text(json.dumps(counts), encoding="utf-8")
        unfinished.replace(file)
    except OSError:
        unfinished.unlink(missing_ok=True)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
