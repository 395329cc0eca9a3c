"""The consoles that everything is printed with: nothing in a text of others can steer the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from mmalign.shown_text import show_controls

_WIDE = 160
"""Columns where nobody looks at a terminal: tables in a file or a pipe are not squeezed."""


class SafeConsole(Console):
    """A console of rich that shows control characters instead of obeying them; those of rich itself pass.

    Strings are no markup: a style is given as `style=` or by a `Text`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders as rich does, then makes what is left of control characters visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(show_controls(segment.text), segment.style)


def output_console() -> SafeConsole:
    """Builds the console of results, on the standard output stream."""
    return SafeConsole()


def message_console() -> SafeConsole:
    """Builds the console of progress, warnings and errors, on the standard error stream."""
    return SafeConsole(stderr=True)


def wide_console() -> SafeConsole:
    """Builds a console of results that does not squeeze tables where nobody looks at a terminal."""
    console = output_console()
    return console if console.is_terminal or "COLUMNS" in os.environ else SafeConsole(width=_WIDE)


def write_line(text: str = "", *, err: bool = False) -> None:
    """Prints text as it is, however long its lines, with control characters made visible."""
    console = message_console() if err else output_console()
    console.print(show_text(text), soft_wrap=True)


def show_text(text: str, style: str = "", *, lines: bool = True) -> Text:
    """Makes a text of others ready to be measured and printed: never markup, control characters visible."""
    return Text(show_controls(text, lines=lines), style)


def new_table(*columns: str, **options: Any) -> Table:
    """Builds a table with columns that wrap instead of being cut."""
    table = Table(**options)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Adds a row of texts to a table."""
    table.add_row(*map(show_text, cells))
