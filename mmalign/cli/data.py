"""`mmalign data`: check data files, convert them, and see them as the model will."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from mmalign.errors import ConfigError, DataError
from mmalign.media.images import MediaLimits
from mmalign.shown_text import dump_json
from mmalign.terminal import output_console, write_line

if TYPE_CHECKING:
    from mmalign.data.reading import Reading
    from mmalign.data.records import Record
    from mmalign.data.sources import DataConfig
    from mmalign.media.checks import Level
    from mmalign.modality import Modality

app = typer.Typer(help="Validate, convert and show records.", no_args_is_help=True, pretty_exceptions_enable=False)

FormatOption = Annotated[
    Literal["auto", "mmalign", "trl"], typer.Option("--format", help="What the rows are: records, or TRL columns.")
]
SplitOption = Annotated[str | None, typer.Option(help="Split of a Hugging Face dataset; default train.")]


@app.command()
def validate(  # noqa: PLR0913 (every option is an argument)
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files, globs, saved datasets or hub ids.")],
    form: FormatOption = "auto",
    split: SplitOption = None,
    on_error: Annotated[
        Literal["raise", "quarantine"], typer.Option(help="List bad rows, or move them to a side file.")
    ] = "raise",
    check_media: Annotated[
        Literal["header", "full", "off"], typer.Option(help="Images: read their headers, decode them, or neither.")
    ] = "header",
    allow_remote_media: Annotated[
        bool, typer.Option("--allow-remote-media", help="Fetch media from http and https addresses.")
    ] = False,
    max_errors: Annotated[int, typer.Option(min=1, help="Bad rows to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Read every row, count what is there, and list the bad rows."""
    counts: Counter[str] = Counter({name: 0 for name in ("records", "responses", "pairs", "unary", "bad")})
    problems: list[str] = []
    for path in paths:
        settings = _read_settings(path, format=form, split=split, on_error=on_error)
        for reading in _check_rows(settings, check_media=check_media, remote=allow_remote_media):
            if reading.record is not None:
                _count(counts, reading.record)
            else:
                counts["bad"] += 1
                problems.append(f"{reading.row.place}: {reading.reason}")
    counts["sources"] = len(paths)
    _print_counts(counts, as_json=as_json)
    if problems and on_error == "raise":
        hidden = len(problems) - max_errors
        raise DataError("\n".join(problems[:max_errors] + [f"... and {hidden} more bad rows"] * (hidden > 0)))


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A file, glob, saved dataset or hub id.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A .jsonl, .jsonl.gz or .parquet file.")],
    form: FormatOption = "auto",
    to: Annotated[Literal["mmalign", "trl"], typer.Option(help="What to write: records, or TRL columns.")] = "mmalign",
    split: SplitOption = None,
    view: Annotated[str | None, typer.Option(help="TRL rows of a dialogue: the agent that is trained.")] = None,
) -> None:
    """Rewrite data as records or TRL rows, in JSONL or Parquet; OUT is written whole or not at all."""
    from mmalign.data.writing import write_records, write_rows

    rows = _iter_good(_read_settings(source, format=form, split=split))
    if to == "mmalign":
        count = write_records((record for _, record in rows), output)
    else:
        count = write_rows(_iter_trl_rows(rows, view), output)
    write_line(f"{output}: {count} rows")


@app.command()
def show(
    path: Annotated[str | None, typer.Argument(help="Data to show; default: the training data of CONFIG.")] = None,
    config: Annotated[Path | None, typer.Option(help="Run configuration whose model reads the data.")] = None,
    modality: Annotated[str | None, typer.Option(help="Modality that reads the data, without a configuration.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the modality.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Records to show.")] = 3,
    form: FormatOption = "auto",
) -> None:
    """Show rows as the model reads them, what the loss counts in colour; without a model, their messages."""
    from mmalign.data.show import print_record

    reader, records = _open_for_show(path, config, modality, model)
    if records is None:
        settings = _read_settings(path or "", format=form, streaming=True)
        records = (record for _, record in _iter_good(settings, find_media=True))
    console = output_console()
    for record in islice(records, limit):
        print_record(record, reader, console)


# -- reading ----------------------------------------------------------------------------------------------------------


def _read_settings(path: str, **settings: Any) -> DataConfig:
    from mmalign.data.sources import DataConfig

    return DataConfig(path=path, **settings)


def _check_rows(
    config: DataConfig, *, find_media: bool = False, check_media: Level = "off", remote: bool = False
) -> Iterator[Reading]:
    from mmalign.data.files import find_rows
    from mmalign.data.reading import read_rows
    from mmalign.data.sources import Quarantine
    from mmalign.media.checks import MediaCheck

    # Nothing is fetched for a header, and what a run will allow is not known here.
    check = MediaCheck(check_media, MediaLimits(remote=remote or check_media == "header")).check
    quarantine = Quarantine(config)
    good = bad = 0
    rows = find_rows(config, "data")
    for reading in read_rows(rows, config, find_media=find_media, check_media=check):
        good += reading.record is not None
        bad += reading.record is None
        if reading.record is None and config.on_error == "quarantine":
            quarantine.add(reading.row, reading.reason)
        yield reading
    if not good and (quarantine.count or not bad):
        raise DataError(quarantine.describe_nothing())
    if quarantine.count:
        write_line(f"{config.path}: {quarantine.count} bad rows moved to {quarantine.path}", err=True)


def _iter_good(config: DataConfig, *, find_media: bool = False) -> Iterator[tuple[str, Record]]:
    for reading in _check_rows(config, find_media=find_media):
        if reading.record is None:
            raise DataError(f"{reading.row.place}: {reading.reason}")
        yield reading.row.place, reading.record


def _iter_trl_rows(rows: Iterable[tuple[str, Record]], view: str | None) -> Iterator[dict[str, Any]]:
    from mmalign.data.trl_export import records_to_trl

    for place, record in rows:
        try:
            yield from records_to_trl(record, view=view)
        except DataError as error:
            raise DataError(f"{place}: {error}") from None


def _open_for_show(
    path: str | None, config: Path | None, modality: str | None, model: str | None
) -> tuple[Modality | None, Iterable[Record] | None]:
    """Returns what reads the records, if anything, and the records of the configuration, if they are wanted."""
    if config is None and path is None:
        raise ConfigError("data show: expected PATH or --config CONFIG")
    if config is None:
        parameters = {} if model is None else {"model": model}
        return (_build_modality(modality, parameters, "--modality") if modality else None), None
    from mmalign.cli.context import current_registry
    from mmalign.config.run_config import load_config
    from mmalign.data.sources import open_source
    from mmalign.planning.assembly import build_transforms

    run = load_config(config)
    registry = current_registry([Path(file) for file in run.plugins])
    reader = _build_modality(run.modality.name, run.modality.parameters, "modality", registry, str(config))
    if path is not None:
        return reader, None
    transforms = build_transforms(registry, run.data.train.transforms, "data.train", str(config))
    return reader, open_source(run.data.train, transforms)


def _build_modality(
    name: str, parameters: dict[str, Any], where: str, registry: Any = None, source: str = ""
) -> Modality:
    from mmalign.cli.context import current_registry
    from mmalign.config.validation import validate_parameters
    from mmalign.registry import load_object

    spec = (registry or current_registry()).find("modality", name, where).spec
    checked = validate_parameters(spec, parameters, where, source)
    modality: Modality = load_object(spec.target)(**{key: getattr(checked, key) for key in type(checked).model_fields})
    return modality


# -- printing ---------------------------------------------------------------------------------------------------------


def _count(counts: Counter[str], record: Record) -> None:
    counts["records"] += 1
    counts["responses"] += len(record.responses)
    counts["pairs"] += len(record.pair_indices())
    counts["unary"] += sum(label.kind == "unary" for label in record.labels)


def _print_counts(counts: Counter[str], *, as_json: bool) -> None:
    if as_json:
        write_line(dump_json(counts, indent=None))
        return
    table = Table(*counts, box=None)
    table.add_row(*map(str, counts.values()))
    output_console().print(table)
