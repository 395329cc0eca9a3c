"""The metrics of a run, as JSON lines in its folder and, if wanted, in experiment trackers.

A line is `{"step": 10, "time": 1753.2, "kind": "train", "loss": 0.69, ...}` in strict JSON: a number that is not finite
is `null`, and `"non_finite": {"loss": "nan"}` says what it was. `time` is in seconds since the epoch.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.errors import ConfigError, suggest

if TYPE_CHECKING:
    from accelerate import Accelerator
    from PIL.Image import Image

FILE = "metrics.jsonl"

_PACKAGES = {"comet_ml": "comet-ml"}
_MODULES = {"tensorboard": "torch.utils.tensorboard"}


def check_trackers(names: Sequence[str]) -> None:
    """Checks that every tracker exists and its package is installed.

    Raises:
        ConfigError: names the key, the nearest tracker, or the command that installs the package.
    """
    # Not at the top: it imports torch, and the log can be read without.
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    available = {str(name) for name in get_available_trackers()}
    for index, name in enumerate(names):
        if name not in known:
            raise ConfigError(f"trackers.{index}: unknown {name!r}{suggest(name, known)}")
        if name not in available:
            command = f"pip install {_PACKAGES.get(name, name)}"
            raise ConfigError(f"trackers.{index}: {name!r} is not installed; install it with `{command}`")
        _try_import(name, f"trackers.{index}")


def _try_import(name: str, key: str) -> None:
    """Imports a tracker's package: one that is there may still be broken, which a run would meet at its first step."""
    try:
        importlib.import_module(_MODULES.get(name, name))
    except (ImportError, AttributeError, TypeError) as error:
        raise ConfigError(f"{key}: {name!r} cannot be imported: {type(error).__name__}: {error}") from None


class MetricsLog:
    """Appends metrics to `metrics.jsonl` and forwards them to trackers.

    The file is opened at the first line, so that a run that is built and not trained leaves an old log alone. Then it
    is cut to the step the run goes on from: what a killed run logged after its last checkpoint is logged again.

    Args:
        directory: folder of the run.
        trackers: names of accelerate's trackers.
        accelerator: what they were given to as `log_with`; None for no trackers.
        resumed_step: the step of the checkpoint the run continues; None for a new run.

    Raises:
        ConfigError: see `check_trackers`.
    """

    def __init__(
        self,
        directory: Path,
        trackers: Sequence[str] = (),
        accelerator: Accelerator | None = None,
        *,
        resumed_step: int | None = None,
    ) -> None:
        check_trackers(trackers)
        self.path = directory / FILE
        self._trackers = tuple(trackers)
        self._accelerator = accelerator
        self._resumed_step = -1 if resumed_step is None else resumed_step
        self._logged: set[tuple[int, str]] = set()
        self._started = False

    def write(self, step: int, kind: str, metrics: Mapping[str, float], *, skip: bool = False) -> None:
        """Logs the metrics of a step; every process may call it, the main one writes.

        Args:
            step: finished optimiser steps.
            kind: `train` or `eval`; a resumed run logs each kind once a step.
            metrics: numbers by name.
            skip: True to leave this step out, for runs that log every few steps.
        """
        if skip or not (self._accelerator is None or self._accelerator.is_main_process):
            return
        if not self._started:
            self._start()
        if (step, kind) in self._logged:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_format_line(step, kind, metrics))
        if self._accelerator is not None and self._trackers:
            self._accelerator.log({f"{kind}/{name}": float(value) for name, value in metrics.items()}, step=step)

    def write_image(self, step: int, name: str, image: Image) -> None:
        """Shows a PIL image in those trackers that take some; the main process calls it, after `write`."""
        import numpy as np

        for tracker in self._accelerator.trackers if self._accelerator is not None and self._trackers else ():
            if tracker.name == "tensorboard":
                pixels = np.asarray(image.convert("RGB"))[None]  # [1, H, W, 3]
                tracker.log_images({name: pixels}, step=step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({name: [image]}, step=step)

    def close(self) -> None:
        """Lets the trackers finish what they have not sent."""
        if self._accelerator is not None and self._trackers and self._started:
            # Not `end_training`, which also dissolves the process group that other ranks still use.
            for tracker in self._accelerator.trackers:
                tracker.finish()

    def _start(self) -> None:
        self._started = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = _read_upto(self.path, self._resumed_step)
        # Through a second file: a kill while rewriting must not cost the whole log.
        rewritten = self.path.with_name(f"{FILE}.tmp")
        rewritten.write_text("".join(line for line, _ in kept), encoding="utf-8")
        os.replace(rewritten, self.path)
        self._logged = {(row["step"], row["kind"]) for _, row in kept}
        if self._accelerator is not None and self._trackers:
            self._accelerator.init_trackers(self.path.parent.name)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """Reads the log of a run; an unfinished last line is left out."""
    return [row for _, row in _iter_rows(directory / FILE)]


def _read_upto(path: Path, step: int) -> list[tuple[str, dict[str, Any]]]:
    return [(line, row) for line, row in _iter_rows(path) if row["step"] <= step]


def _iter_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        # A kill cuts the last line short; a power cut can leave zeros.
        with suppress(ValueError):
            if line.endswith("\n"):
                yield line, json.loads(line)


def _format_line(step: int, kind: str, metrics: Mapping[str, float]) -> str:
    values = {name: float(value) for name, value in metrics.items()}
    broken = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
    row: dict[str, Any] = {"step": step, "time": round(time.time(), 3), "kind": kind}
    row |= {name: None if name in broken else value for name, value in values.items()}
    if broken:
        row["non_finite"] = broken
    return json.dumps(row, allow_nan=False) + "\n"
