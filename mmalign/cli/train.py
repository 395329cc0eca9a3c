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


def train(
    config: Config,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the output folder.")] = False,
) -> None:
    """Train with a run configuration; Ctrl-C saves and stops."""
    from mmalign import api
    from mmalign.cli.report import print_result

    run = api.train(config, overrides or (), resume=resume, overwrite=overwrite, disabled=disabled_plugins())
    if run.accelerator.is_main_process:
        print_result(run, wide_console())


def check(config: Config, overrides: Overrides = None) -> None:
    """Validate a run configuration, its data and plugins without training, and print the plan."""
    from mmalign import api
    from mmalign.cli.report import print_inspection

    print_inspection(api.check(config, overrides or (), disabled=disabled_plugins()), wide_console())


def evaluate(run: RunOrConfig, overrides: Overrides = None) -> None:
    """Compute held-out metrics of a trained run or of a start model."""
    from rich.table import Table

    from mmalign import api

    table = Table(title=show_text(str(run)))
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in api.evaluate(run, overrides or (), disabled=disabled_plugins()).items():
        add_row(table, name, f"{value:.4g}")
    output_console().print(table)
