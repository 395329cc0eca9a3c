"""Commands that work with a model: `train`, `check`, `generate`, `eval`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmalign.cli_context import disabled_plugins
from mmalign.components import Component
from mmalign.errors import ConfigError
from mmalign.records import Record

if TYPE_CHECKING:
    from mmalign.parts import Collector
    from mmalign.run import Run

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
    from mmalign.cli_report import print_result, wide_console

    run = api.train(config, overrides or (), resume=resume, overwrite=overwrite, disabled=disabled_plugins())
    if run.accelerator.is_main_process:
        print_result(run, wide_console())


def check(config: Config, overrides: Overrides = None) -> None:
    """Validate a run configuration, its data and plugins without training, and print the plan."""
    from mmalign import api
    from mmalign.cli_report import print_inspection, wide_console

    print_inspection(api.check(config, overrides or (), disabled=disabled_plugins()), wide_console())


def evaluate(run: RunOrConfig, overrides: Overrides = None) -> None:
    """Compute held-out metrics of a trained run or of a start model."""
    from mmalign import api

    table = Table(title=str(run))
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in api.evaluate(run, overrides or (), disabled=disabled_plugins()).items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)


def generate(  # noqa: PLR0913 (the options of a command are its arguments)
    run: RunOrConfig,
    overrides: Overrides = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    data: Annotated[Path | None, typer.Option(help="A data file whose prompts are answered.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Responses to each prompt.")] = 1,
    pairs: Annotated[int, typer.Option(min=0, help="Preference pairs a prompt, best against worst by reward.")] = 0,
    collector: Annotated[
        str | None, typer.Option(help="NAME or '{name: revise, ...}': how prompts are sampled.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write records as JSON lines instead of showing them.")] = None,
) -> None:
    """Sample responses; with rewards in the configuration they are scored and can be paired into preference data."""
    from accelerate.utils import set_seed

    from mmalign import api
    from mmalign.feedback import sample_records

    prompts = _read_prompts(prompt or [], data)
    loaded = api.load_run(run, overrides or (), disabled=disabled_plugins())
    set_seed(loaded.config.train.seed)
    sampler = None if collector is None else _build_collector(loaded, collector, count)
    records = sample_records(loaded, prompts, count=count, pairs=pairs, collector=sampler)
    if output is None:
        _show(records)
    else:
        _write(track(records, "sampling", total=len(prompts), console=Console(stderr=True)), output)


def _build_collector(run: Run, text: str, count: int) -> Collector:
    """Builds the collector that an option names, with its parameters if it is a mapping."""
    from mmalign.planning import Builder

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
    from mmalign.data import DataConfig, open_source

    prompts = [Record.from_text(text, id=f"prompt-{index}") for index, text in enumerate(texts)]
    if data is not None:
        prompts += open_source(DataConfig(path=str(data)), where="--data")
    if not prompts:
        raise ConfigError("nothing to answer; give --prompt TEXT or --data FILE")
    return prompts


def _show(records: Iterable[Record]) -> None:
    console = Console()
    for record in records:
        rewards = {score.item: score.value for score in record.scores if score.name == "reward"}
        console.print(record.prompt_text, style="bold", markup=False, highlight=False, soft_wrap=True)
        for response in record.responses:
            reward = rewards.get(response.rid)
            note = "" if reward is None else f"[{reward:+.3f}] "
            console.print(f"  {note}{response.text}", markup=False, highlight=False, soft_wrap=True)


def _write(records: Iterable[Record], output: Path) -> None:
    """Writes beside the final place first: an interrupted command leaves no half file."""
    partial = output.with_name(f"{output.name}.tmp")
    output.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w", encoding="utf-8") as file:
        file.writelines(f"{record.to_json()}\n" for record in records)
    partial.replace(output)
