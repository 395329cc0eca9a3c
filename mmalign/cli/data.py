"""`mmalign data`: check data files, convert them, and see them as the model will."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from mmalign.cli.data_source import DataRequest, RowCheck, parse_columns, parse_components
from mmalign.errors import ConfigError, DataError
from mmalign.shown_text import dump_json
from mmalign.terminal import output_console, write_line

if TYPE_CHECKING:
    from mmalign.contract.modality import Modality
    from mmalign.data.records import Record
    from mmalign.sources.layouts import LayoutWriter

app = typer.Typer(help="Validate, convert and show records.", no_args_is_help=True, pretty_exceptions_enable=False)

PathsAndOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH...] [KEY=VALUE...]",
        help="Files, globs, folders or hub ids; keys of the configuration, e.g. data.train.limit=5.",
    ),
]
ConfigOption = Annotated[Path | None, typer.Option(help="Run configuration whose data are read, and read so.")]
FormatOption = Annotated[
    list[str] | None,
    typer.Option("--format", help="Format of the file, of its rows, or (twice) both; see `mmalign list formats`."),
]
SplitOption = Annotated[str | None, typer.Option(help="Split of a Hugging Face dataset; default train.")]
ColumnsOption = Annotated[
    list[str] | None, typer.Option(metavar="THEIRS=OURS", help="Columns to rename, e.g. question=prompt,answer=chosen.")
]


@app.command()
def validate(  # noqa: PLR0913 - the options of the command
    paths: PathsAndOverrides = None,
    config: ConfigOption = None,
    form: FormatOption = None,
    columns: ColumnsOption = None,
    split: SplitOption = None,
    on_error: Annotated[
        Literal["raise", "quarantine"] | None, typer.Option(help="List bad rows, or move them to a side file.")
    ] = None,
    check_media: Annotated[
        Literal["header", "full", "off"] | None, typer.Option(help="Images: read headers, decode, or neither.")
    ] = None,
    allow_remote_media: Annotated[
        bool, typer.Option("--allow-remote-media", help="Fetch media from http and https addresses.")
    ] = False,
    max_errors: Annotated[int, typer.Option(min=1, help="Kinds of faults to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Read every row, count what is there, and list the bad rows, those with one fault together."""
    from mmalign.sources.faults import FaultList

    request = _request(paths, config, form, columns, split=split, on_error=on_error)
    counts: Counter[str] = Counter({name: 0 for name in ("records", "responses", "pairs", "unary", "bad", "sources")})
    faults = FaultList()
    for where, settings in request.iter_sources():
        counts["sources"] += 1
        level = check_media or request.section.check_media
        check = RowCheck(request, where, settings, check_media=level, remote=allow_remote_media)
        for reading in check.iter_readings():
            if reading.record is not None:
                _count(counts, reading.record)
            else:
                counts["bad"] += 1
                if settings.on_error == "raise":
                    faults.add(reading.row.place, reading.reason)
    _print_counts(counts, as_json=as_json)
    if faults.count:
        raise DataError(faults.describe(max_errors))


@app.command()
def convert(  # noqa: PLR0913 - the options of the command
    source: Annotated[str, typer.Argument(metavar="IN", help="A file, glob, folder or hub id.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; its name tells the format.")],
    form: FormatOption = None,
    to: Annotated[str, typer.Option(help="Layout to write: mmalign, trl, sharegpt, ... or {name: ..., key: ...}.")] = (
        "mmalign"
    ),
    as_: Annotated[str | None, typer.Option("--as", help="Format of OUT where its name does not tell it.")] = None,
    columns: ColumnsOption = None,
    split: SplitOption = None,
    view: Annotated[str | None, typer.Option(help="TRL rows of a dialogue: the agent that is trained.")] = None,
) -> None:
    """Rewrite data in another format; OUT is written whole or not at all, and what it cannot hold is said."""
    from mmalign.sources.format_choice import Formats
    from mmalign.sources.writing import write_rows

    request = _request([source], None, form, columns, split=split)
    ((where, settings),) = request.iter_sources()
    formats = Formats(request.registry, parse_components([as_] if as_ else [], "--as"), "--as")
    writer = _build_writer(to, view, formats)
    target = formats.for_file(output)
    if target is not None and target.flat and writer.bound.spec.whole:
        raise ConfigError(f"{output}: columns of text do not hold records, which are nested; use --to trl, or .jsonl")
    check = RowCheck(request, where, settings)
    folder = Path(source).parent if target is not None and target.embeds else None
    count = write_rows(_iter_rows(check.iter_good(), writer, folder), output, formats, writer.bound.layout.schema)
    write_line(f"{output}: {count} rows")
    if writer.lost:
        write_line(f"{output}: {writer.describe_lost()}", err=True)


@app.command()
def show(  # noqa: PLR0913 - the options of the command
    paths: PathsAndOverrides = None,
    config: ConfigOption = None,
    modality: Annotated[str | None, typer.Option(help="Modality that reads the data, without a configuration.")] = None,
    model: Annotated[str | None, typer.Option(help="Model of the modality.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Records to show.")] = 3,
    form: FormatOption = None,
    columns: ColumnsOption = None,
    split: SplitOption = None,
) -> None:
    """Show rows as the model reads them, what the loss counts in colour; without a model, their messages."""
    from mmalign.sources.show import print_record

    request = _request(paths, config, form, columns, split=split, streaming=True if paths else None)
    reader, records = _open_for_show(request, modality, model)
    console = output_console()
    for record in islice(records, limit):
        print_record(record, reader, console)


# -- reading ----------------------------------------------------------------------------------------------------------


def _request(
    arguments: list[str] | None, config: Path | None, form: list[str] | None, columns: list[str] | None, **options: Any
) -> DataRequest:
    formats = parse_components(form or [], "--format")
    return DataRequest.parse(arguments or [], config, format=formats, columns=parse_columns(columns or []), **options)


def _open_for_show(
    request: DataRequest, modality: str | None, model: str | None
) -> tuple[Modality | None, Iterable[Record]]:
    """Returns what reads the records, if anything, and the records."""
    where, settings = next(request.iter_sources())
    if request.config is None:
        parameters = {} if model is None else {"model": model}
        reader = _build_modality(request, modality, parameters, "--modality") if modality else None
    else:
        named = request.raw.get("modality")
        if not isinstance(named, dict) or not isinstance(named.get("name"), str):
            raise ConfigError(f"{request.config}: modality: expected a name and parameters")
        parameters = {key: value for key, value in named.items() if key != "name"}
        reader = _build_modality(request, named["name"], parameters, "modality")
    if reader is not None:
        reader.media_limits = request.section.media_limits
    if request.paths:
        check = RowCheck(request, where, settings, find_media=True)
        return reader, (record for _, record in check.iter_good())
    from mmalign.planning.assembly import build_transforms
    from mmalign.sources.source import open_source

    transforms = build_transforms(request.registry, settings.transforms, where, str(request.config))
    return reader, open_source(settings, transforms, where=where, registry=request.registry)


def _build_modality(request: DataRequest, name: str, parameters: dict[str, Any], where: str) -> Modality:
    from mmalign.config.validation import validate_parameters
    from mmalign.import_strings import load_object

    spec = request.registry.find("modality", name, where).spec
    checked = validate_parameters(spec, parameters, where, str(request.config or ""))
    modality: Modality = load_object(spec.target)(**{key: getattr(checked, key) for key in type(checked).model_fields})
    return modality


# -- writing ----------------------------------------------------------------------------------------------------------


def _build_writer(to: str, view: str | None, formats: Any) -> LayoutWriter:
    from mmalign.contract.specs import LayoutSpec
    from mmalign.sources.format_choice import BoundLayout
    from mmalign.sources.layouts import LayoutWriter

    (component,) = parse_components([to], "--to") or [{"name": "mmalign"}]
    if view is not None:
        component = {**component, "view": view}
    spec, layout = formats.build(component, "--to")
    if not isinstance(spec, LayoutSpec):
        raise ConfigError(f"--to: {spec.name!r} is a format of files; name OUT so, or give it with --as")
    if not spec.writes:
        raise ConfigError(f"--to: {spec.name!r} is read only")
    # A view leaves the turns of others out on purpose.
    return LayoutWriter(BoundLayout(spec, layout), compare=view is None)


def _iter_rows(
    records: Iterable[tuple[str, Record]], writer: LayoutWriter, folder: Path | None
) -> Iterator[dict[str, Any]]:
    from mmalign.media.embedding import embed_media

    for place, record in records:
        try:
            yield from writer.write(record if folder is None else embed_media(record, folder))
        except DataError as error:
            raise DataError(f"{place}: {error}") from None


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
