"""An error on one of several processes ends all of them, with one message that names the process and the cause.

A process that fails leaves the others at a collective call that will never return. So the first to fail writes what
happened to the store through which the processes found each other, and a thread of every other process looks there.
Nothing of this runs where a run has one process.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from mmalign.errors import MmalignError, OtherProcessError, TrainingError

_PERIOD = 1.0
"""Seconds between two looks at the store."""
_GRACE = 10.0
"""Seconds that a process gets to end by itself once another one has failed; mostly its own call fails at once."""
_JOIN = 15.0
"""Seconds to wait for a look that is under way; longer than the store's own limit."""
_KEY = "failure"
_EXIT_CODE = 2
# What backends say of a process that is gone.
_LOST = ("closed by peer", "connection reset", "broken pipe", "nccl", "timed out", "socket")

_calls = 0


@contextmanager
def fail_together() -> Iterator[None]:
    """Ends all processes of a run where one raises; every process of the run enters it, equally often.

    Raises:
        OtherProcessError: on the processes that did not fail first; it names the one that did, and its message.
    """
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    if processes == 1 or "MASTER_ADDR" not in os.environ:
        yield
        return
    board = _Board()
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(board, done), daemon=True)
    watch.start()
    try:
        yield
    except BaseException as error:
        first = board.claim(_describe(error))
        if first is not None:
            raise OtherProcessError(f"stopped, since {first}") from None
        lost = _name_process(error, processes)
        if lost is None:
            raise
        raise lost from error
    finally:
        done.set()
        # A thread inside a call of the store when the interpreter ends would abort the process.
        watch.join(timeout=_JOIN)


class _Board:
    """Where the first process that fails says so."""

    def __init__(self) -> None:
        global _calls
        _calls += 1
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._prefix = f"mmalign/{restarts}/{_calls}"
        self._lock = threading.Lock()
        self._store: Any = None

    def claim(self, message: str) -> str | None:
        """Says that this process has failed; returns what another one has said before, if one has."""
        text = f"process {os.environ.get('RANK', '?')} on {socket.gethostname()} failed: {message}"
        # Without a store there is nobody to tell, and its host was among those that failed.
        with suppress(RuntimeError, OSError), self._lock:
            found: str = self._connect().compare_set(_KEY, "", text).decode()
            return None if found == text else found
        return None

    def read(self) -> str | None:
        """Returns what another process has said, if one has failed."""
        with self._lock:
            store = self._connect()
            return store.get(_KEY).decode() if store.check([_KEY]) else None

    def _connect(self) -> Any:
        from torch import distributed

        stores: Any = distributed  # its stubs do not name them
        if self._store is None:
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            client = stores.TCPStore(host, port, is_master=False, timeout=timedelta(seconds=10))
            self._store = stores.PrefixStore(self._prefix, client)
        return self._store


def _watch(board: _Board, done: threading.Event) -> None:
    """Ends this process if another one has failed and it does not end by itself: it may wait for that one for ever."""
    while not done.wait(_PERIOD):
        try:
            first = board.read()
        except (RuntimeError, OSError):  # its host is gone: the next collective call will tell
            continue
        if first is not None:
            if not done.wait(_GRACE):
                sys.stderr.flush()
                os._exit(_EXIT_CODE)
            return


def _describe(error: BaseException) -> str:
    lines = str(error).splitlines() if isinstance(error, MmalignError) else [f"{type(error).__name__}: {error}"]
    return " ".join(" ".join(lines).split())


def _name_process(error: BaseException, processes: int) -> TrainingError | None:
    """Adds to an error for users which process raised it; a bug keeps its traceback.

    Returns:
        the error instead of one that says that a connection was lost: as no process has failed, one was killed.
    """
    where = f"process {os.environ.get('RANK', '?')} of {processes} on {socket.gethostname()}"
    if isinstance(error, MmalignError):
        error.args = (f"{where}: {error}",)
    if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _LOST):
        first = str(error).splitlines()[0][:200]
        return TrainingError(f"{where}: another process is gone, killed or out of memory; the connection says: {first}")
    return None
