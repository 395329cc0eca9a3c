"""What a person sees of a run: a progress bar, and the tables at its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

_WINDOW = 20
"""Steps over which speed is averaged."""


class Progress:
    """A bar over the steps of a run with loss, speed and remaining time; a line every tenth where there is no terminal.

    Args:
        total: steps of the whole run.
        start: steps that were done before, in a resumed run.
        quiet: True to show nothing, for processes other than the main one.
        console: where to show; the standard error stream by default.
    """

    def __init__(self, total: int, *, start: int = 0, quiet: bool = False, console: Console | None = None) -> None:
        self._total = total
        self._step = start
        self._console = console or Console(stderr=True)
        self._lines = not quiet and not self._console.is_terminal
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW + 1)
        self._responses = 0
        self._bar = Bar(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=start, numbers="")

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
            metrics: of the last step; `loss` and, in online runs, `reward` are shown.
            responses: how many the step trained on, over all processes.
        """
        previous, self._step = self._step, step
        self._responses += responses
        self._marks.append((time.monotonic(), step, self._responses))
        numbers = self._format(metrics)
        self._bar.update(self._task, completed=step, numbers=numbers)
        if self._lines and _tenth(step, self._total) > _tenth(previous, self._total):
            self._console.print(f"step {step}/{self._total}  {numbers}  {self._format_remaining()}", soft_wrap=True)

    def _format(self, metrics: Mapping[str, float]) -> str:
        shown = [f"{name} {metrics[name]:.4g}" for name in ("loss", "reward") if name in metrics]
        steps, responses = self._speed()
        return "  ".join([*shown, f"{responses:.3g} responses/s", f"{steps:.3g} steps/s"])

    def _format_remaining(self) -> str:
        steps, _ = self._speed()
        return f"{(self._total - self._step) / steps:.0f} s left" if steps else ""

    def _speed(self) -> tuple[float, float]:
        """Steps and responses a second over the last steps."""
        (t0, s0, r0), (t1, s1, r1) = self._marks[0], self._marks[-1]
        elapsed = t1 - t0
        return ((s1 - s0) / elapsed, (r1 - r0) / elapsed) if elapsed > 0 else (0.0, 0.0)


def before_after_table(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """Builds a table of held-out metrics before and after training, in the order of `after`."""
    table = Table(title="held-out metrics")
    table.add_column("metric")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right")
    for name in [*after, *(name for name in before if name not in after)]:
        table.add_row(escape(name), *format_change(before.get(name), after.get(name)))
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
        table.add_row(*(escape(cell) for cell in row))
    return table


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _tenth(step: int, total: int) -> int:
    return 10 * step // max(total, 1)
