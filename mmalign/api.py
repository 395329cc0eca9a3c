"""The Python interface: `mmalign.train("config.yaml", overrides={...})` and `mmalign.check(...)`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from mmalign.config.reading import Overrides
from mmalign.config.run_config import RunConfig
from mmalign.distribution import is_main_process
from mmalign.errors import CheckpointError, ConfigError
from mmalign.foreign import plugin_boundary
from mmalign.hardware import choose_dtype, flushed_subnormals, kept_memory
from mmalign.monitoring.run_log import run_log
from mmalign.planning.assembly import Assembly
from mmalign.results.checkpoint import find_latest, load_checkpoint
from mmalign.results.comparison import read_run
from mmalign.results.export import export_run
from mmalign.results.loaded import describe_loaded
from mmalign.results.model_folder import write_model_folder
from mmalign.results.output_checks import check_disk
from mmalign.results.provenance import check_same_plugins
from mmalign.results.resuming import check_keys, check_same_model, go_on, is_complete, recall_results
from mmalign.results.run_folder import CHECKPOINTS, CONFIG, check_folder, find_start, open_output
from mmalign.results.run_lock import lock_folder
from mmalign.run import Run
from mmalign.training.assembling import load_assembly
from mmalign.training.evaluation import measure
from mmalign.training.inspection import Inspection, inspect_run
from mmalign.training.loop import train as run_loop
from mmalign.training.process_failures import fail_together
from mmalign.training.startup import build_run


@fail_together()
@plugin_boundary()
@flushed_subnormals()
def train(
    config: str | Path | RunConfig,
    overrides: Overrides = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow_changed: Sequence[str] = (),
    disabled: Sequence[str] = (),
) -> Run:
    """Trains and returns the finished run; its `before` and `after` hold the held-out metrics.

    Args:
        config: a YAML file, or a configuration made in code.
        overrides: `{"train.steps": 10}` or `["train.steps=10"]`, for a file only.
        resume: go on from the newest checkpoint in the output folder, if there is one. A run that is finished is left
            as it is.
        overwrite: start anew although the output folder holds a run.
        allow_changed: keys that may differ from those of the checkpoint though they shaped the steps that are done;
            they are noted in `run.json`.
        disabled: plugins to leave out.

    Raises:
        MmalignError: anything the user can mend: configuration, data, plugins, checkpoints, a diverging run.
    """
    assembly = load_assembly(config, overrides, disabled=disabled)
    output = Path(assembly.config.output)
    check_folder(output)
    with lock_folder(output) if is_main_process() else nullcontext():
        return _train(assembly, find_start(output, resume=resume, overwrite=overwrite), allow_changed)


def _train(assembly: Assembly, latest: Path | None, allow_changed: Sequence[str]) -> Run:
    output = Path(assembly.config.output)
    restored = load_checkpoint(latest) if latest else None
    if restored:
        # What the keys alone tell, before a model is loaded.
        check_keys(restored, assembly, allow_changed)
    left_out = restored.state.get("left_out", {}) if restored else None
    run = build_run(assembly, output, resumed_step=restored.step if restored else None, left_out=left_out)
    check_same_plugins(run)
    if run.accelerator.is_main_process:
        run.loaded = describe_loaded(run)
    if restored:
        go_on(run, restored, allow_changed)
        if is_complete(run):
            recall_results(run)
            return run
    check_disk(run.config, sum(one.numel() for one in run.trainable().values()))
    open_output(run, anew=restored is None)
    with run_log(run.output, writes=run.accelerator.is_main_process, anew=restored is None):
        run.hooks.on_run_configured(run=run)
        with kept_memory(run.accelerator.device):
            run_loop(run)
        if not run.interrupted:
            export_run(run)
        run.log.close()
    return run


@plugin_boundary()
def check(config: str | Path | RunConfig, overrides: Overrides = (), *, disabled: Sequence[str] = ()) -> Inspection:
    """Validates everything that can be validated without training or loading a model of any size.

    Returns:
        the plan, data statistics, parameter counts and a memory estimate.

    Raises:
        MmalignError: the first thing that is wrong.
    """
    return inspect_run(load_assembly(config, overrides, disabled=disabled))


@plugin_boundary()
def load_run(path: str | Path, overrides: Overrides = (), *, disabled: Sequence[str] = ()) -> Run:
    """Builds a run to generate or evaluate with; nothing is written.

    Args:
        path: the folder of a run, whose newest checkpoint is restored, or a configuration file for the start model.
        overrides: may change anything but the modality; training data are not opened.
    """
    folder = Path(path)
    if not folder.is_dir():
        assembly = load_assembly(path, overrides, disabled=disabled)
        return build_run(assembly, Path(assembly.config.output), training=False)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder}: not the folder of a run, no {CONFIG}; give such a folder or a configuration")
    latest = find_latest(folder / CHECKPOINTS)
    if latest is None:
        raise CheckpointError(f"{folder}: holds no checkpoint; give the configuration file to use the start model")
    checkpoint = load_checkpoint(latest)
    run = build_run(load_assembly(folder / CONFIG, overrides, disabled=disabled), folder, training=False)
    check_same_model(run, checkpoint.state)
    run.restore_weights(checkpoint.tensors, checkpoint.state)
    return run


@plugin_boundary()
def evaluate(path: str | Path, overrides: Overrides = (), *, disabled: Sequence[str] = ()) -> dict[str, float]:
    """Computes the held-out metrics of a run's folder or of a configuration's start model."""
    run = load_run(path, overrides, disabled=disabled)
    if not run.held_out:
        raise ConfigError(f"{path}: data.eval: missing; it names the held-out records to evaluate on")
    return measure(run)[0]


def export(
    path: str | Path,
    output: str | Path,
    *,
    merged: bool = False,
    dtype: str = "auto",
    disabled: Sequence[str] = (),
) -> None:
    """Writes the model of a run's newest checkpoint to a new folder, with tokenizer or scheduler and model card.

    Args:
        path: the folder of a run.
        merged: the whole network with adapters merged into it, in float32, then rounded once to `dtype`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`, what the run keeps its network in. An adapter is written as
            it was trained.

    Raises:
        ConfigError: `path` is no run, the output exists, or this modality has no merged export.
        CheckpointError: the run has no checkpoint.
    """
    record = read_run(Path(path))
    if Path(output).exists():
        raise ConfigError(f"--output: {output} exists; give another folder, or remove it")
    precise = {"train.dtype": "float32", "train.mixed_precision": "no"} if merged else {}
    run = load_run(path, precise, disabled=disabled)
    adapter = run.assembly.modality.adapter
    wanted = str(record.config["train.dtype"]) if dtype == "auto" else dtype
    rounded = choose_dtype(wanted, run.accelerator.device, adapter=adapter) if merged else None
    write_model_folder(run, record, Path(output), merged=merged, dtype=rounded)


__all__ = ["check", "evaluate", "export", "load_run", "train"]
