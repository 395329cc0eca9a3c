"""Commands that work with a model: `train`, `check`, `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.cli.context import disabled_plugins
from mmalign.terminal import add_row, output_console, show_text, wide_console

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML run configuration.")]
RunOrConfig = Annotated[
    Path, typer.Argument(metavar="RUN|CONFIG", help="The folder of a run, or a YAML run configuration (start model).")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, e.g. train.steps=10 rewards.0.weight=2."),
]


_SIGNALLED = 128
"""What shells add to the number of a signal for the exit code."""


def train(
    config: Config,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
    allow_changed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", help="With --resume: go on though this key has changed; may be given several times."
        ),
    ] = None,
) -> None:
    """Train with a run configuration; Ctrl-C saves and stops.

    Exit codes: 0 when the run is finished; 130 after Ctrl-C and 143 after SIGTERM, once all is saved; 2 after an error.
    """
    _check_early(config, overrides)
    from mmalign import api
    from mmalign.cli.report import print_result

    run = api.train(
        config,
        overrides or (),
        resume=resume,
        overwrite=overwrite,
        allow_changed=allow_changed or (),
        disabled=disabled_plugins(),
    )
    if run.accelerator.is_main_process:
        print_result(run, wide_console())
    if run.interrupted:
        raise typer.Exit(_SIGNALLED + run.stop_signal)


def check(config: Config, overrides: Overrides = None) -> None:
    """Validate a run configuration, its data and plugins without training, and print the plan."""
    _check_early(config, overrides)
    from mmalign import api
    from mmalign.cli.report import print_inspection

    print_inspection(api.check(config, overrides or (), disabled=disabled_plugins()), wide_console())


def evaluate(run: RunOrConfig, overrides: Overrides = None) -> None:
    """Compute held-out metrics of a trained run or of a start model."""
    if not run.is_dir():
        _check_early(run, overrides)
    from rich.table import Table

    from mmalign import api

    table = Table(title=show_text(str(run)))
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in api.evaluate(run, overrides or (), disabled=disabled_plugins()).items():
        add_row(table, name, f"{value:.4g}")
    output_console().print(table)


def _check_early(config: Path, overrides: list[str] | None) -> None:
    """Answers what is wrong with the keys before torch loads, which takes seconds."""
    from mmalign.planning.early_checks import check_early

    check_early(config, overrides or (), disabled=disabled_plugins())
