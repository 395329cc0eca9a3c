"""One process writes into a run's folder at a time: a lock that ends with its process, however that ends.

    output/.lock    {"pid": 4711, "host": "node3", "started": "2026-11-30T09:30:00+00:00"}

The lock is the operating system's (`fcntl.lockf`), so a killed process leaves none behind; the file says who holds it,
and is removed at the end. Children that a run forks do not inherit it. Where a file system knows no locks, the process
named in the file decides: it is asked whether it lives if it is of this host, and believed if it is of another.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from errno import EACCES, EAGAIN
from pathlib import Path
from typing import Any

from mmalign.errors import ConfigError

LOCK = ".lock"

_PAUSE = 0.2  # seconds

# A lock of the system is one of the whole process, which would not be refused its own.
_held: set[Path] = set()


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds the lock of a run's folder; makes the folder, and removes it again if nothing came into it.

    Raises:
        ConfigError: another process holds it: names its pid and host; or the folder cannot be made or written.
    """
    made = [one for one in (folder, *folder.parents) if not os.path.exists(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = (folder / LOCK).resolve()
        descriptor = _acquire(path, folder)
    except (OSError, ValueError) as error:
        _remove_empty(made)
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"output: {folder} cannot be written: {reason}") from None
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        # Before the lock is let go: afterwards it could be the file of the next process.
        path.unlink(missing_ok=True)
        os.close(descriptor)
        _remove_empty(made)


def _acquire(path: Path, folder: Path) -> int:
    """Opens the file with its lock, and writes into it who holds it."""
    if path in _held:
        raise _in_use(folder, _describe_self())
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        holder = _read_holder(descriptor)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (EACCES, EAGAIN) or _lives(holder):
                # It may have begun at the same moment, and not have written yet.
                time.sleep(_PAUSE)
                holder = _read_holder(descriptor)
                os.close(descriptor)
                raise _in_use(folder, holder) from None
        if _is_still(descriptor, path):
            break
        os.close(descriptor)  # the process before has removed the file meanwhile
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_describe_self()).encode(), 0)
    return descriptor


def _in_use(folder: Path, holder: dict[str, Any]) -> ConfigError:
    who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
    since = f", since {holder['started']}" if "started" in holder else ""
    return ConfigError(
        f"output: {folder} is in use by {who}{since}; wait for it, stop it, or choose another output folder"
    )


def _describe_self() -> dict[str, Any]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _read_holder(descriptor: int) -> dict[str, Any]:
    with suppress(ValueError):
        found = json.loads(os.pread(descriptor, 4096, 0))
        return found if isinstance(found, dict) else {}
    return {}


def _lives(holder: dict[str, Any]) -> bool:
    """Returns whether the process that a lock file names may still run; asked only where there are no locks."""
    if not isinstance(holder.get("pid"), int):
        return False
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_empty(made: list[Path]) -> None:
    for one in made:
        with suppress(OSError, ValueError):
            one.rmdir()
