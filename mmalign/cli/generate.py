"""The command `generate`: samples of a model as texts, files, records, and a contact sheet of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.progress import track

from mmalign.cli.context import disabled_plugins
from mmalign.cli.train import Overrides, RunOrConfig
from mmalign.config.components import Component
from mmalign.data.records import Record
from mmalign.errors import ConfigError, MediaError
from mmalign.terminal import message_console, output_console, show_text, write_line

if TYPE_CHECKING:
    from mmalign.config.data import DataSection
    from mmalign.contract.components import Collector
    from mmalign.media.contact_sheet import ContactSheet
    from mmalign.run import Run
    from mmalign.training.feedback import Sampled

_SHEET = "mmalign-sheet.png"


def generate(  # noqa: PLR0913 (one argument is one option)
    run: RunOrConfig,
    overrides: Overrides = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    data: Annotated[Path | None, typer.Option(help="A data file whose prompts are answered.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Responses to each prompt.")] = 1,
    pairs: Annotated[int, typer.Option(min=0, help="Preference pairs a prompt, best against worst by reward.")] = 0,
    collector: Annotated[
        str | None, typer.Option(help="NAME or '{name: revise, ...}': how prompts are sampled.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write records as JSON lines, with images, sounds and arrays beside, instead of showing them."
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help=f"PNG file of all images; default beside the output, else {_SHEET}.")
    ] = None,
) -> None:
    """Sample responses; with rewards in the configuration they are scored and can be paired into preference data."""
    from accelerate.utils import set_seed

    from mmalign import api
    from mmalign.media.contact_sheet import ContactSheet
    from mmalign.training.feedback import sample_outputs
    from mmalign.training.sample_writing import write_samples

    prompts = _read_prompts(prompt or [], data)
    loaded = api.load_run(run, overrides or (), disabled=disabled_plugins())
    _check_prompts(prompts, loaded.config.data)
    set_seed(loaded.config.train.seed)
    drawn = ContactSheet()
    sampler = None if collector is None else _build_collector(loaded, collector, count)
    outputs = sample_outputs(loaded, prompts, count=count, pairs=pairs, collector=sampler)
    samples = _draw(outputs, drawn, wanted=sheet is not None)
    if output is None:
        _show(samples)
    else:
        counts = write_samples(track(samples, "sampling", total=len(prompts), console=message_console()), output)
        for folder, written in sorted(counts.items()):
            write_line(f"{output}: {written} {folder.rpartition('_')[2]} in {folder}")
    if not drawn.empty:
        place = sheet or (output.with_name(f"{output.stem}_sheet.png") if output else Path(_SHEET))
        drawn.save(place)
        write_line(f"contact sheet: {place}")


def _build_collector(run: Run, text: str, count: int) -> Collector:
    """Builds the collector that an option names, with its parameters if it is a mapping."""
    from mmalign.planning.plan import Builder

    if count != 1:
        raise ConfigError("--count: the collector says how many responses a prompt gets; use its own parameter")
    try:
        given = yaml.safe_load(text)
        component = Component.model_validate({"name": given} if isinstance(given, str) else given)
    except (yaml.YAMLError, ValidationError):
        raise ConfigError(f"--collector: expected a name, or {{name: ..., parameters}}, got {text!r}") from None
    collector: Collector = Builder(run.assembly.registry, "").build("collector", component, "--collector")
    return collector


def _read_prompts(texts: list[str], data: Path | None) -> list[Record]:
    from mmalign.config.data import DataConfig
    from mmalign.sources.source import open_source

    prompts = [Record.from_text(text, id=f"prompt-{index}") for index, text in enumerate(texts)]
    if data is not None:
        prompts += open_source(DataConfig(path=str(data)), where="--data")
    if not prompts:
        raise ConfigError("nothing to answer; give --prompt TEXT or --data FILE")
    return prompts


def _check_prompts(prompts: Sequence[Record], config: DataSection) -> None:
    from mmalign.media.checks import MediaCheck

    check = MediaCheck(config.check_media, config.media_limits)
    for record in prompts:
        try:
            check.check(record)
        except MediaError as error:
            raise MediaError(f"--data: record {record.id!r}: {error}") from None


def _draw(samples: Iterable[Sampled], sheet: ContactSheet, *, wanted: bool) -> Iterator[Sampled]:
    """Draws images on a sheet as they pass by."""
    from mmalign.media.images import is_image

    for sampled in samples:
        record, outputs = sampled
        images = [outputs[one.rid] if is_image(outputs[one.rid]) else None for one in record.responses]
        if any(image is not None for image in images):
            rewards = _rewards(record)
            notes = [f"reward {rewards[one.rid]:+.3f}" if one.rid in rewards else "" for one in record.responses]
            sheet.add(record.prompt_text, images, notes if any(notes) else ())
        elif wanted:
            raise ConfigError("--sheet: the responses of this model are no images; drop it")
        yield sampled


def _rewards(record: Record) -> dict[str, float]:
    return {one.item: one.value for one in record.scores if one.name == "reward" and one.value is not None}


def _show(samples: Iterable[Sampled]) -> None:
    from mmalign.media.outputs import describe_output

    console = output_console()
    for record, outputs in samples:
        rewards = _rewards(record)
        console.print(show_text(record.prompt_text, "bold"), soft_wrap=True)
        for response in record.responses:
            note = f"[{rewards[response.rid]:+.3f}] " if response.rid in rewards else ""
            shown = describe_output(outputs[response.rid]) or response.text
            console.print(show_text(f"  {note}{shown}"), soft_wrap=True)
