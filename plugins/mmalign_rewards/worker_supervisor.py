"""Watches over a worker and whatever it starts: limits, and an end for all of them together.

The process that the run starts is a supervisor; it forks the worker that calls the function. Since every orphan among
the descendants becomes the supervisor's child, it finds them all, also those that moved to a session of their own. They
end when the worker does, when the run asks for it, and when the run is gone, however it went. On systems other than
Linux there is no supervisor, and the memory limit alone holds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TOO_MANY = 79
"""Exit code of a supervisor whose worker had more processes than it may have."""

_POLL_SECONDS = 0.25
_SET_DEATH_SIGNAL = 1
_SET_CHILD_SUBREAPER = 36
_WATCHED = (signal.SIGCHLD, signal.SIGTERM)


@dataclass(frozen=True)
class WorkerLimits:
    """What a worker may use.

    Attributes:
        memory: bytes of data of each of its processes.
        processes: that are there at a time, the worker included.
    """

    memory: int
    processes: int


def run_supervised(work: Callable[[], None], limits: WorkerLimits, run: int, release: Callable[[], None]) -> None:
    """Does `work` in a child under limits, and ends with it, with the run, or on SIGTERM; does not return on Linux.

    Args:
        run: process id of the run.
        release: closes what only the worker needs; called in the supervisor.
    """
    if sys.platform != "linux":
        _limit(limits)
        return work()
    _control_process(_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    worker = os.fork()
    if worker == 0:
        _control_process(_SET_DEATH_SIGNAL, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        _work_and_exit(work, limits)
    release()
    code = _watch(worker, run, limits.processes)
    _end_descendants()
    os._exit(code)


def _work_and_exit(work: Callable[[], None], limits: WorkerLimits) -> None:
    code = 1
    try:
        _limit(limits)
        work()
        code = 0
    # Whatever ends the worker has to be shown here: above it there is only the supervisor.
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _limit(limits: WorkerLimits) -> None:
    import resource

    for kind, most in ((resource.RLIMIT_DATA, limits.memory), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _watch(worker: int, run: int, processes: int) -> int:
    """Waits until the worker should end or has ended; returns the exit code to leave with."""
    while True:
        received = signal.sigtimedwait(_WATCHED, _POLL_SECONDS)
        if received is not None and received.si_signo == signal.SIGTERM:
            return 128 + signal.SIGTERM
        if os.getppid() != run:
            return 1
        code = _reap(worker)
        if code is not None:
            return code if code >= 0 else 128 - code
        if sum(1 for _ in _iter_descendants(os.getpid())) > processes:
            return TOO_MANY


def _reap(worker: int) -> int | None:
    """Takes leave of children that have ended; returns the worker's exit code if it is one of them."""
    code = None
    with suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == 0:
                break
            if child == worker:
                code = os.waitstatus_to_exitcode(status)
    return code


def _end_descendants() -> None:
    for _ in range(500):
        # Stopped first: what goes on starting others could never be counted to its end.
        for how in (signal.SIGSTOP, signal.SIGKILL):
            for process in list(_iter_descendants(os.getpid())):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process, how)
        _reap(-1)
        if next(_iter_descendants(os.getpid()), None) is None:
            return
        time.sleep(0.01)


def _iter_descendants(process: int) -> Iterator[int]:
    children: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            children += map(int, file.read_text().split())
    for child in children:
        yield child
        yield from _iter_descendants(child)


def _control_process(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
