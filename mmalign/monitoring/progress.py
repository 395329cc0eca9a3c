"""What a person sees of a run: its progress while it goes, and the tables at its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType

import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from mmalign.hardware import memory_in_use
from mmalign.monitoring.headlines import format_headlines
from mmalign.terminal import add_row, message_console, show_text

_WINDOW = 20
"""Steps over which speed is averaged."""


class Progress:
    """A bar over the steps of a run, and below it its headline metrics; a line every tenth where there is no terminal.

    Args:
        total: steps of the whole run.
        start: steps that were done before, in a resumed run.
        quiet: True to show nothing, for processes other than the main one.
        device: whose memory is shown.
        console: where to show; the standard error stream by default.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        quiet: bool = False,
        device: torch.device | None = None,
        console: Console | None = None,
    ) -> None:
        self._total = total
        self._step = start
        self._device = device or torch.device("cpu")
        self._console = console or message_console()
        self._lines = not quiet and not self._console.is_terminal
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW + 1)
        self._responses = 0
        self._bar = _LiveBar(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[speed]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=start, speed="")

    def __enter__(self) -> Progress:
        self._marks.append((time.monotonic(), self._step, 0))
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int, metrics: Mapping[str, float], *, responses: int = 0) -> None:
        """Shows that `step` steps are done.

        Args:
            step: finished optimiser steps.
            metrics: of the last step; `format_headlines` says which of them are shown.
            responses: how many the step trained on, over all processes.
        """
        previous, self._step = self._step, step
        self._responses += responses
        self._marks.append((time.monotonic(), step, self._responses))
        numbers, speed = format_headlines(metrics), self._format_speed()
        self._bar.below["train"] = numbers
        self._bar.update(self._task, completed=step, speed=speed)
        if self._lines and _tenth(step, self._total) > _tenth(previous, self._total):
            self._print_line(f"step {step}/{self._total}  {numbers}  {speed}  {self._format_remaining()}")

    def show_held_out(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows the held-out metrics that were computed after `step` steps; nothing if there are none."""
        if not metrics:
            return
        line = f"held-out at step {step}: {format_headlines(metrics)}"
        self._bar.below["eval"] = line
        if self._lines:
            self._print_line(line)

    def _print_line(self, line: str) -> None:
        self._console.print(show_text(line), soft_wrap=True)

    def _format_speed(self) -> str:
        steps, responses = self._speed()
        memory = memory_in_use(self._device) / 2**30
        return f"{memory:.2f} GiB  {responses:.3g} responses/s  {steps:.3g} steps/s"

    def _format_remaining(self) -> str:
        steps, _ = self._speed()
        return f"{_format_time((self._total - self._step) / steps)} left" if steps else ""

    def _speed(self) -> tuple[float, float]:
        """Steps and responses a second over the last steps."""
        (t0, s0, r0), (t1, s1, r1) = self._marks[0], self._marks[-1]
        elapsed = t1 - t0
        return ((s1 - s0) / elapsed, (r1 - r0) / elapsed) if elapsed > 0 else (0.0, 0.0)


class _LiveBar(Bar):
    """A bar of rich with lines of text below it.

    Attributes:
        below: the lines, by what they are about.
    """

    below: dict[str, str]

    def __init__(self, *columns: TextColumn | MofNCompleteColumn | BarColumn | TimeRemainingColumn, **options: object):
        self.below = {}
        super().__init__(*columns, **options)  # type: ignore[arg-type]

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yields the bar, then the lines."""
        yield from super().get_renderables()
        for line in self.below.values():
            yield Text("  ").append_text(show_text(line, lines=False))


def before_after_table(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """Builds a table of held-out metrics before and after training, in the order of `after`."""
    table = Table(title="held-out metrics")
    table.add_column("metric")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    for name in [*after, *(name for name in before if name not in after)]:
        add_row(table, name, *format_change(before.get(name), after.get(name)))
    return table


def format_change(before: float | None, after: float | None) -> tuple[str, str, str]:
    """Formats a number before, after, and its signed change; a missing one is a dash.

    >>> format_change(0.5, 0.75)
    ('0.5', '0.75', '+0.25')
    >>> format_change(None, 2.0)
    ('-', '2', '-')
    """
    change = "-" if before is None or after is None else f"{after - before:+.4g}"
    return _format_number(before), _format_number(after), change


def examples_table(rows: Iterable[tuple[str, str, str]]) -> Table:
    """Builds a table of (prompt, response before, response after); model output is shown as it is, never as markup."""
    table = Table(title="examples", show_lines=True)
    for name in ("prompt", "before", "after"):
        table.add_column(name, overflow="fold", ratio=1)
    for row in rows:
        add_row(table, *row)
    return table


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _format_time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _tenth(step: int, total: int) -> int:
    return 10 * step // max(total, 1)
