"""`mmalign doctor`: one page about this installation and machine, to look at or to put into a bug report."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mmalign.cli.context import current_registry
from mmalign.shown_text import dump_json
from mmalign.terminal import output_console, show_text, write_line


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices and their speed, memory, plugins, extras, the cache and what the environment sets."""
    from mmalign.diagnosis import diagnose

    report = diagnose(current_registry())
    if as_json:
        write_line(dump_json(report))
        return
    for title, section in report.items():
        output_console().print(show_text(title, "bold"))
        width = max((len(name) for name in section), default=0)
        for name, value in section.items():
            write_line(f"  {name:{width}}  {_format(value)}")
        if not section:
            write_line("  nothing")


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_format(one)}" for name, one in value.items())
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
