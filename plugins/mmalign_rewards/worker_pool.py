"""Calls a function on one sample at a time in processes of its own, where it may be slow, hang or crash.

A call that takes too long or kills its process costs its own sample only: the process is replaced by a new one, and
what it had started ends with it. The processes are spawned, not forked: a fork of a process that runs torch may stand
still for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.reduction import ForkingPickler
from typing import Any

from mmalign import ConfigError
from mmalign_rewards.plain_values import decode, encode, to_plain
from mmalign_rewards.worker_channel import Channel, receive_whole, send_whole
from mmalign_rewards.worker_supervisor import TOO_MANY, WorkerLimits, run_supervised

START_SECONDS = 120.0
"""A process that has not imported its function by then is given up."""

LIMITS = WorkerLimits(memory=8 * 2**30, processes=64)

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
        limits: of each process.
    """

    def __init__(
        self,
        load: Load,
        path: str,
        *,
        folder: str,
        size: int,
        timeout: float | None,
        limits: WorkerLimits = LIMITS,
    ) -> None:
        self._origin = (load, path, folder, limits)
        self._size = size
        self._timeout = timeout
        self._workers: list[_Worker] = []

    def call(self, calls: Sequence[Arguments]) -> list[Any]:
        """Calls the function with each set of keyword arguments.

        Returns:
            for each call what it returned, as `to_plain` reads it, or the exception that says why there is nothing.

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
        ready = wait([worker.channel.fileno() for worker in active], limit) if active else []
        for index, worker in enumerate(self._workers):
            place = worker.place
            arrived: tuple[bool, Any] = worker.receive() if worker.channel.fileno() in ready else (False, None)
            whole, result = arrived
            if not whole and not worker.idle and time.monotonic() >= worker.deadline:
                whole, result = True, TimeoutError(f"no score within {self._timeout} s")
                worker.lost = True
            if not whole:
                continue
            if place is not None:
                results[place] = result
            elif worker.lost:
                raise ConfigError(_explain_start(result))
            if worker.lost:
                worker.kill()
                self._workers[index] = _Worker(*self._origin)


class _Worker:
    """One process: starting until `ready`, then idle, or busy with the call in `place`; at last perhaps `lost`."""

    def __init__(self, load: Load, path: str, folder: str, limits: WorkerLimits) -> None:
        context = multiprocessing.get_context("spawn")
        own, other = socket.socketpair()
        self.channel = Channel(own)
        self._limits = limits
        # A daemon ends with the run, however that ends.
        arguments = (other, load, path, folder, limits, os.getpid())
        self._process = context.Process(target=_start, args=arguments, daemon=True)
        self._process.start()
        other.close()  # so that the end of the process ends the connection
        self.place: int | None = None
        self.deadline = time.monotonic() + START_SECONDS
        self.ready = False
        self.lost = False

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def idle(self) -> bool:
        return self.ready and self.place is None

    def start(self, place: int, arguments: Arguments, timeout: float | None) -> Exception | None:
        """Hands over a call; returns why it could not."""
        try:
            pickled = bytes(ForkingPickler.dumps(dict(arguments)))
        # What cannot be pickled raises whatever its class likes, also what a lost process would; it costs one sample.
        except Exception as error:  # noqa: BLE001
            return error
        self.place = place
        self.deadline = time.monotonic() + timeout if timeout else float("inf")
        try:
            self.channel.send(pickled, timeout)
        except TimeoutError:
            self.deadline = time.monotonic()
        except OSError:
            pass  # the process is gone: `receive` will find it so
        return None

    def receive(self) -> tuple[bool, Any]:
        """Takes what the process sent: whether its answer is whole, and the result, or what became of the process."""
        try:
            message = self.channel.receive_part()
            if message is None:
                return False, None
            answer = decode(message)
        except EOFError:
            self.lost = True
            return True, ChildProcessError(self._explain_end())
        except (ValueError, RecursionError) as error:
            self.lost = True
            return True, ChildProcessError(f"the process that scored it sent no answer that can be read: {error}")
        self.ready, self.place = True, None
        if isinstance(answer, dict) and "error" in answer:
            # The class of the function's exception may not exist in the run's process, its words do.
            return True, RuntimeError(str(answer["error"]))
        return True, answer["value"] if isinstance(answer, dict) else None

    def _explain_end(self) -> str:
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code == TOO_MANY:
            return f"it started more than max_processes, {self._limits.processes}"
        if code is not None and code > 128:
            return f"the process that scored it was ended by signal {code - 128}"
        return f"the process that scored it ended with exit code {code}"

    def kill(self) -> None:
        self._process.terminate()  # the supervisor ends all that the worker started
        self._process.join(timeout=10)
        self._process.kill()
        self._process.join()
        self.channel.close()


def _explain_start(lost: Exception) -> str:
    cause = "ended" if isinstance(lost, ChildProcessError) else f"was not ready within {START_SECONDS:g} s"
    return (
        f"rewards.python.workers: a worker process {cause} while it imported the function; its own error is above. "
        "A script that trains needs `if __name__ == '__main__':`, or set workers to 0"
    )


def _start(end: socket.socket, load: Load, path: str, folder: str, limits: WorkerLimits, run: int) -> None:
    """Runs in the process that the run spawned."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run after its round; until then it needs scores
    run_supervised(lambda: _serve(end, load, path, folder), limits, run, end.close)


def _serve(end: socket.socket, load: Load, path: str, folder: str) -> None:
    """Imports the function, then answers calls until the run is gone."""
    if folder:
        sys.path.append(folder)
    function = load(path)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the run is gone
        send_whole(end, encode(None))
        while True:
            send_whole(end, _answer(function, pickle.loads(receive_whole(end))))


def _answer(function: Callable[..., Any], arguments: Arguments) -> bytes:
    """Encodes what the function returned for one sample, or the words of its exception."""
    try:
        return encode({"value": to_plain(function(**arguments))})
    # The function is foreign code.
    except Exception as error:  # noqa: BLE001
        return encode({"error": f"{type(error).__name__}: {error}"})
