"""Memory that a piece of work takes above what was in use before it; also a plugin that meters a run's second step."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psutil
import torch

import mmalign

if TYPE_CHECKING:
    from mmalign.run import Run

INTERVAL = 0.001
"""Seconds between two looks at the resident memory; tensors that matter live longer."""


class MemoryMeter:
    """The highest rise of memory between `start` and `stop`: CUDA's allocated memory, or the process's resident one.

    Attributes:
        rise: bytes, set by `stop`.
    """

    def __init__(self) -> None:
        self.rise = 0
        self._process = psutil.Process()
        self._stopped = threading.Event()
        self._before = self._highest = 0
        self._watch = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """Takes what is in use now as zero."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._before = self._process.memory_info().rss
            self._watch.start()

    def stop(self) -> None:
        """Ends the measurement."""
        if torch.cuda.is_available():
            self._highest = torch.cuda.max_memory_allocated()
        else:
            self._stopped.set()
            self._watch.join()
        self.rise = max(self._highest - self._before, 0)

    def _look(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._highest = max(self._highest, self._process.memory_info().rss)


METER = MemoryMeter()
"""The meter of a run that names this file among its plugins."""


@mmalign.hookimpl
def on_step_ended(run: Run, metrics: Mapping[str, Any]) -> None:
    """Meters the second step; the first one has loaded what is loaded at the first use."""
    if run.step == 1:
        METER.start()
    elif run.step == 2:
        METER.stop()
