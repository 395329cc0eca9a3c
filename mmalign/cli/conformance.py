"""`mmalign conformance`: evaluates golden-vector files with the installed plugins."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mmalign.cli.context import current_registry
from mmalign.plugins.conformance import CaseResult, Status, golden_files, run_conformance
from mmalign.shown_text import dump_json
from mmalign.terminal import output_console, write_line

_STYLES: dict[Status, str] = {"passed": "green", "failed": "bold red", "not_implemented": "dim"}


def conformance(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Golden-vector files, JSON; default: those that come with mmalign.", metavar="[FILE]..."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Relative tolerance, instead of that of each case.")
    ] = None,
) -> None:
    """Computes every case of golden-vector files with the installed plugins and compares.

    Without files: one line for each that comes with mmalign, what failed, and what no plugin computes, by method.

    Exit codes: 0 if no case failed, even if no plugin computes some; 1 if a case failed; 2 if a file has another form.
    """
    registry = current_registry()
    results = [(file, run_conformance(file, registry, tolerance=tolerance)) for file in files or golden_files()]
    if as_json:
        write_line(dump_json({"cases": [_to_dict(file, case) for file, cases in results for case in cases]}))
    elif files:
        _print_tables(results)
    else:
        _print_summary(results)
    if any(case.status == "failed" for _, cases in results for case in cases):
        raise typer.Exit(1)


def _to_dict(file: Path, case: CaseResult) -> dict[str, Any]:
    error = case.max_rel_err
    # NaN is no JSON; null with the status `failed` says the same.
    finite = error if error is not None and math.isfinite(error) else None
    return {**asdict(case), "max_rel_err": finite, "file": str(file)}


def _print_summary(results: Sequence[tuple[Path, Sequence[CaseResult]]]) -> None:
    from rich.text import Text

    console = output_console()
    for file, cases in results:
        counts = Counter(case.status for case in cases)
        console.print(Text(f"{file.name}: " + ", ".join(f"{counts[status]} {status}" for status in _STYLES)))
        for status in ("failed", "not_implemented"):
            for method, number in sorted(Counter(_label(case) for case in cases if case.status == status).items()):
                console.print(Text(f"  {status:16}", style=_STYLES[status]).append(f"{number:3}  {method}", "default"))
        for case in cases:
            if case.status == "failed":
                console.print(Text(f"  {case.id}: {case.detail}", style=_STYLES["failed"]))


def _label(case: CaseResult) -> str:
    return f"{case.method} / {case.part}" if case.part else case.method


def _print_tables(results: Sequence[tuple[Path, Sequence[CaseResult]]]) -> None:
    from rich.text import Text

    console = output_console()
    for file, cases in results:
        for case in cases:
            error = "" if case.max_rel_err is None else f"  max relative error {case.max_rel_err:.1e}"
            reason = f"  {case.detail}" if case.status == "failed" else ""
            status = Text(f"{case.status:16}", style=_STYLES[case.status])
            console.print(status.append(f"{case.id}  ({case.method}){error}{reason}", style="default"), soft_wrap=True)
        counts = Counter(case.status for case in cases)
        write_line(f"{file}: " + ", ".join(f"{counts[status]} {status}" for status in _STYLES))
