"""Calls a function on one sample at a time in processes of its own, where it may be slow, hang or crash.

A call that takes too long or kills its process costs its own sample only: the process is replaced by a new one. The
processes are spawned, not forked: a fork of a process that runs torch may stand still for ever.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from numbers import Real
from typing import Any

from mmalign import ConfigError

START_SECONDS = 120.0
"""A process that has not imported its function by then is given up."""

Arguments = Mapping[str, Any]
Load = Callable[[str], Callable[..., Any]]


class WorkerPool:
    """Processes that call one function.

    Args:
        load: imports the function in a process; a function of a module itself.
        path: what to import.
        folder: added to the end of the processes' module search path, for a module that only the run knows of.
        size: number of processes.
        timeout: seconds a call may take; None for ever.
    """

    def __init__(self, load: Load, path: str, *, folder: str, size: int, timeout: float | None) -> None:
        self._origin = (load, path, folder)
        self._size = size
        self._timeout = timeout
        self._workers: list[_Worker] = []

    def call(self, calls: Sequence[Arguments]) -> list[Any]:
        """Calls the function with each set of keyword arguments.

        Returns:
            for each call what it returned, or the exception that says why there is nothing.

        Raises:
            ConfigError: a process cannot import the function.
        """
        try:
            return self._call(calls)
        except BaseException:
            # Answers to these calls must not be taken for answers to later ones.
            for worker in self._workers:
                worker.kill()
            self._workers = []
            raise

    def _call(self, calls: Sequence[Arguments]) -> list[Any]:
        waiting = deque(enumerate(calls))
        results: list[Any] = [None] * len(calls)
        self._workers = [worker for worker in self._workers if worker.alive]
        self._workers += [_Worker(*self._origin) for _ in range(min(self._size, len(calls)) - len(self._workers))]
        while waiting or any(worker.place is not None for worker in self._workers):
            for worker in self._workers:
                if waiting and worker.idle:
                    place, arguments = waiting.popleft()
                    results[place] = worker.start(place, arguments, self._timeout)
            self._collect(results)
        return results

    def _collect(self, results: list[Any]) -> None:
        """Waits until a process has something to say or runs out of time, and replaces those that are lost."""
        active = [worker for worker in self._workers if not worker.idle]
        patience = min((worker.deadline for worker in active), default=0.0) - time.monotonic()
        limit = max(0.0, patience) if patience != float("inf") else None
        ready = wait([worker.connection for worker in active], limit) if active else []
        for index, worker in enumerate(self._workers):
            place = worker.place
            lost: Exception | None = None
            if worker.connection in ready:
                result, lost = worker.receive()
            elif not worker.idle and time.monotonic() >= worker.deadline:
                result, lost = None, TimeoutError(f"no score within {self._timeout} s")
            else:
                continue
            if place is not None:
                results[place] = lost or result
            elif lost is not None:
                raise ConfigError(_explain_start(lost))
            if lost is not None:
                worker.kill()
                self._workers[index] = _Worker(*self._origin)


class _Worker:
    """One process: starting until `ready`, then idle, or busy with the call in `place`."""

    def __init__(self, load: Load, path: str, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        # A daemon ends with the run, however that ends.
        self._process = context.Process(target=_serve, args=(other, load, path, folder), daemon=True)
        self._process.start()
        other.close()  # so that the end of the process ends the connection
        self.place: int | None = None
        self.deadline = time.monotonic() + START_SECONDS
        self.ready = False

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def idle(self) -> bool:
        return self.ready and self.place is None

    def start(self, place: int, arguments: Arguments, timeout: float | None) -> Exception | None:
        """Hands over a call; returns why it could not."""
        try:
            pickled = ForkingPickler.dumps(dict(arguments))
        # What cannot be pickled raises whatever its class likes, also what a lost process would; it costs one sample.
        except Exception as error:  # noqa: BLE001
            return error
        with suppress(OSError):  # the process is gone: `receive` will find it so
            self.connection.send_bytes(pickled)
        self.place = place
        self.deadline = time.monotonic() + timeout if timeout else float("inf")
        return None

    def receive(self) -> tuple[Any, Exception | None]:
        """Takes what the process sent: (its result, None), or (None, what became of the process)."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
            return None, ChildProcessError(f"the process that scored it ended with exit code {self._process.exitcode}")
        self.ready, self.place = True, None
        return result, None

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _explain_start(lost: Exception) -> str:
    cause = "ended" if isinstance(lost, ChildProcessError) else f"was not ready within {START_SECONDS:g} s"
    return (
        f"rewards.python.workers: a worker process {cause} while it imported the function; its own error is above. "
        "A script that trains needs `if __name__ == '__main__':`, or set workers to 0"
    )


def _serve(connection: Connection, load: Load, path: str, folder: str) -> None:
    """Runs in the process: imports the function, then answers calls until the run is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run after its round; until then it needs scores
    if folder:
        sys.path.append(folder)
    function = load(path)
    with suppress(EOFError, BrokenPipeError):  # the run is gone
        connection.send(None)
        while True:
            connection.send(_answer(function, connection.recv()))


def _answer(function: Callable[..., Any], arguments: Arguments) -> Any:
    """Returns the scores as plain numbers, which need no module to unpickle, or an exception."""
    try:
        scores = function(**arguments)
        (score,) = scores.tolist() if hasattr(scores, "tolist") else scores
        return _plain(score)
    # The function is foreign code; the class of its exception may not exist in the run's process, its words do.
    except Exception as error:  # noqa: BLE001
        return RuntimeError(f"{type(error).__name__}: {error}")


def _plain(score: Any) -> Any:
    value = score.tolist() if hasattr(score, "tolist") else score
    if isinstance(value, Mapping):
        return {str(name): float(number) for name, number in value.items() if isinstance(number, Real)}
    return [float(number) for number in value] if isinstance(value, (list, tuple)) else float(value)
