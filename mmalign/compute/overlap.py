"""Scoring the rewards of one part of a round while the next part is sampled.

The prompts are cut only where a call of the engine may be cut at no cost, and the samples of all parts belong to one
call of the rewards. So rewards and counts of failures of given rollouts are those of a round in one part. The caller's
thread samples and decodes; one more thread scores with the rewards that declare themselves `background`. The others
score at the end, in the caller's thread, all samples at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from types import TracebackType
from typing import cast

from mmalign.compute.backend import Backend
from mmalign.contract.components import Collector
from mmalign.contract.values import Rollout
from mmalign.data.records import Record
from mmalign.rewards.scorer import Scoring, build_samples


def collect_in_parts(
    backend: Backend, collector: Collector, prompts: Sequence[Record], parts: int, scoring: Scoring
) -> list[Rollout]:
    """Collects rollouts in at most `parts` parts and scores them with the rewards that run in the background.

    Args:
        collector: one with an `independent_group`.
        scoring: gets all samples; `finish` is left to the caller.

    Returns:
        the rollouts, one or more of each prompt, in order.
    """
    rollouts: list[Rollout] = []
    with BackgroundThread() as background:
        for part in _cut(backend, collector, prompts, parts):
            collected = collector.collect(part, backend.sample)
            samples = scoring.add(build_samples(collected, backend.assembly.modality.decode))
            background.submit(partial(scoring.score_early, samples))
            rollouts += collected
        # All at once: what goes through the network together moves log-probs in their last bits.
        groups = backend.fill_in_logps([rollout.responses for rollout in rollouts])
        background.wait()
    return [replace(rollout, responses=tuple(group)) for rollout, group in zip(rollouts, groups, strict=True)]


def _cut(backend: Backend, collector: Collector, prompts: Sequence[Record], parts: int) -> Iterator[Sequence[Record]]:
    assembly = backend.assembly
    unit = cast(int, assembly.engine.prompts_per_draw(assembly.modality, cast(int, collector.independent_group)))
    units = -(-len(prompts) // unit)
    bounds = [units * index // parts * unit for index in range(parts + 1)]
    for start, stop in pairwise(bounds):
        if start < stop:
            yield prompts[start:stop]


class BackgroundThread:
    """A thread that makes one call after the other, until its context ends.

    Where the context ends with an error or Ctrl-C, calls that have not begun are dropped. The one that has is not
    waited for: it may be waiting for something that never comes.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._futures: list[Future[None]] = []

    def __enter__(self) -> BackgroundThread:
        # A daemon does not keep the process from ending.
        threading.Thread(target=self._work, name="mmalign-rewards", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._futures:
            future.cancel()
        self._queue.put(None)

    def submit(self, call: Callable[[], None]) -> None:
        """Queues a call; raises what an earlier one has raised, if it has."""
        for future in self._futures:
            if future.done():
                future.result()
        self._futures.append(Future())
        self._queue.put((self._futures[-1], call))

    def wait(self) -> None:
        """Waits for all calls; raises what the first of those that failed has raised."""
        for future in self._futures:
            future.result()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, call = item
            if future.set_running_or_notify_cancel():
                _settle(future, call)


def _settle(future: Future[None], call: Callable[[], None]) -> None:
    try:
        call()
    # Whatever it is, it belongs to the thread that waits.
    except BaseException as error:  # noqa: BLE001
        future.set_exception(error)
    else:
        future.set_result(None)
