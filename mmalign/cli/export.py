"""`mmalign export`: the model of a run in its users' format, to a new folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmalign.cli.context import disabled_plugins
from mmalign.errors import ConfigError
from mmalign.terminal import write_line


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    merged: Annotated[
        bool, typer.Option("--merged", help="The whole network, adapters merged into it, instead of the adapter.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new folder; default RUN/model or RUN/merged.")
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of merged weights; auto is what the run keeps its network in."),
    ] = "auto",
    gguf: Annotated[bool, typer.Option("--gguf", help="Merge, and convert to a GGUF file beside the folder.")] = False,
) -> None:
    """Write the model of a run, with tokenizer or scheduler and model card, from its newest checkpoint."""
    from mmalign import api
    from mmalign.results.gguf_export import convert_to_gguf, find_converter

    merged = merged or gguf
    if dtype != "auto" and not merged:
        raise ConfigError("--dtype: an adapter is written as it was trained; give --merged, too")
    folder = output or run / ("merged" if merged else "model")
    converter = find_converter(folder) if gguf else ""
    api.export(run, folder, merged=merged, dtype=dtype, disabled=disabled_plugins())
    write_line(f"{folder}: {'the merged network' if merged else 'the model'} of {run}")
    if gguf:
        file = folder.with_name(f"{folder.name}.gguf")
        convert_to_gguf(converter, folder, file)
        write_line(f"{file}: the same as GGUF")
