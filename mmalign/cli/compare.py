"""`mmalign compare`: held-out metrics of runs side by side, and what differs in their configurations."""

from __future__ import annotations

import math
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mmalign.errors import ConfigError
from mmalign.results.comparison import Comparison, RunRecord, compare_runs
from mmalign.shown_text import dump_json
from mmalign.terminal import SafeConsole, show_text, wide_console, write_line

_WRITERS = {".html": "save_html", ".svg": "save_svg"}


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs; the first is the base.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write an .html or .svg file instead.")] = None,
) -> None:
    """Compare held-out metrics of runs, and list the configuration keys in which they differ."""
    comparison = compare_runs(runs)
    if as_json:
        write_line(dump_json(_to_dict(comparison)))
    elif output is None:
        wide_console().print(_render(comparison))
    else:
        _write(comparison, output)


def _write(comparison: Comparison, output: Path) -> None:
    if output.suffix not in _WRITERS:
        raise ConfigError(f"--output: expected a file that ends in {' or '.join(_WRITERS)}, got {str(output)!r}")
    console = SafeConsole(record=True, width=120, file=StringIO())
    console.print(_render(comparison))
    try:
        getattr(console, _WRITERS[output.suffix])(str(output))
    except OSError as error:
        raise ConfigError(f"--output: cannot write {str(output)!r}: {error.strerror}") from None


def _to_dict(comparison: Comparison) -> dict[str, Any]:
    base = comparison.runs[0]
    return {
        "runs": [
            {"folder": str(run.folder), "step": run.step, "finished": run.finished, "data": dict(run.data)}
            for run in comparison.runs
        ],
        "metrics": {
            name: [
                {
                    "value": _finite(run.metrics.get(name)),
                    "interval": run.intervals.get(name),
                    "difference": None if run is base else _finite(comparison.difference(name, run)),
                }
                for run in comparison.runs
            ]
            for name in comparison.metrics
        },
        "config": {key: [run.config.get(key) for run in comparison.runs] for key in comparison.keys},
        "warnings": list(comparison.warnings),
    }


def _finite(value: float | None) -> float | None:
    # NaN is no JSON.
    return value if value is not None and math.isfinite(value) else None


def _render(comparison: Comparison) -> Group:
    warnings = [Text("warning: ", "yellow").append_text(show_text(text, "default")) for text in comparison.warnings]
    return Group(_metrics_table(comparison), _config_table(comparison), *warnings)


def _metrics_table(comparison: Comparison) -> Table:
    table = Table(title="held-out metrics")
    table.add_column("metric", overflow="fold")
    for index, run in enumerate(comparison.runs):
        table.add_column(show_text(f"{run.folder}\nstep {run.step}"), justify="right", overflow="fold")
        if index:
            table.add_column("difference", justify="right")
    for name in comparison.metrics:
        cells = [_format(run, name) for run in comparison.runs[:1]]
        for run in comparison.runs[1:]:
            difference = comparison.difference(name, run)
            cells += [_format(run, name), "-" if difference is None else f"{difference:+.4g}"]
        table.add_row(show_text(name), *cells)
    return table


def _format(run: RunRecord, name: str) -> str:
    if name not in run.metrics:
        return "-"
    interval = run.intervals.get(name)
    return f"{run.metrics[name]:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def _config_table(comparison: Comparison) -> Table | Text:
    if not comparison.keys:
        return Text("the configurations are the same, but for the output folder")
    table = Table(title="configuration keys that differ")
    for heading in ("key", *(str(run.folder) for run in comparison.runs)):
        table.add_column(show_text(heading), overflow="fold")
    for key in comparison.keys:
        values = [str(run.config[key]) if key in run.config else "-" for run in comparison.runs]
        table.add_row(show_text(key), *map(show_text, values))
    return table
