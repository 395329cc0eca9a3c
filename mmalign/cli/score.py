"""The command `score`: writes what a trained run computes of stored responses into their records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from mmalign.cli.context import disabled_plugins
from mmalign.cli.train import Overrides, RunOrConfig
from mmalign.terminal import message_console


def score(
    run: RunOrConfig,
    data: Annotated[Path, typer.Option(help="A data file with responses.")],
    quantity: Annotated[str, typer.Option(help="A quantity of the run, of responses or pairs, e.g. prompt_values.")],
    output: Annotated[Path, typer.Option(help="The file of records to write.")],
    overrides: Overrides = None,
    name: Annotated[str, typer.Option(help="Name of the score; default that of the quantity.")] = "",
    passes: Annotated[int, typer.Option(min=1, help="Several: with dropout, as a vector score.")] = 1,
) -> None:
    """Score stored responses with a trained run: one of its quantities becomes a score of the records."""
    from accelerate.utils import set_seed

    from mmalign import api
    from mmalign.config.data import DataConfig
    from mmalign.sources.source import open_source
    from mmalign.sources.writing import write_records
    from mmalign.training.annotation import score_records

    records = list(open_source(DataConfig(path=str(data)), where="--data"))
    loaded = api.load_run(run, overrides or (), disabled=disabled_plugins())
    set_seed(loaded.config.train.seed)
    scored = score_records(loaded, records, quantity, name=name or quantity, passes=passes)
    write_records(track(scored, "scoring", total=len(records), console=message_console()), output)
