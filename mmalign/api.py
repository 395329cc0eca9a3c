"""The Python interface: `mmalign.train("config.yaml", overrides={...})` and `mmalign.check(...)`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from mmalign.config.run_config import Overrides, RunConfig, dump_config, read_config
from mmalign.config.validation import validate
from mmalign.errors import CheckpointError, ConfigError
from mmalign.evaluation import measure
from mmalign.hardware import flushed_subnormals, kept_memory
from mmalign.loop import train as run_loop
from mmalign.monitoring.sample_grids import SAMPLES
from mmalign.planning.assembly import Assembly, assemble, load_registry_for
from mmalign.planning.inspection import Inspection, inspect_run
from mmalign.results.checkpoint import find_latest, load_checkpoint
from mmalign.results.export import MERGED, MODEL, export_run
from mmalign.results.provenance import check_same_plugins, write_provenance
from mmalign.run import Run
from mmalign.startup import build_run

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"


@flushed_subnormals()
def train(
    config: str | Path | RunConfig,
    overrides: Overrides = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    disabled: Sequence[str] = (),
) -> Run:
    """Trains and returns the finished run; its `before` and `after` hold the held-out metrics.

    Args:
        config: a YAML file, or a configuration made in code.
        overrides: `{"train.steps": 10}` or `["train.steps=10"]`, for a file only.
        resume: go on from the newest checkpoint in the output folder, if there is one.
        overwrite: start anew although the output folder holds a run.
        disabled: plugins to leave out.

    Raises:
        MmalignError: anything the user can mend: configuration, data, plugins, checkpoints, a diverging run.
    """
    assembly = load_assembly(config, overrides, disabled=disabled)
    output = Path(assembly.config.output)
    latest = _find_start(output, resume=resume, overwrite=overwrite)
    restored = load_checkpoint(latest) if latest else None
    left_out = restored.state.get("left_out", {}) if restored else None
    run = build_run(assembly, output, resumed_step=restored.step if restored else None, left_out=left_out)
    check_same_plugins(run)
    if restored:
        run.restore(restored.tensors, restored.state)
    _open_output(run, anew=restored is None)
    run.hooks.on_run_configured(run=run)
    with kept_memory(run.accelerator.device):
        run_loop(run)
    if not run.interrupted:
        export_run(run)
    run.log.close()
    return run


def check(config: str | Path | RunConfig, overrides: Overrides = (), *, disabled: Sequence[str] = ()) -> Inspection:
    """Validates everything that can be validated without training or loading a model of any size.

    Returns:
        the plan, data statistics, parameter counts and a memory estimate.

    Raises:
        MmalignError: the first thing that is wrong.
    """
    return inspect_run(load_assembly(config, overrides, disabled=disabled))


def load_assembly(
    config: str | Path | RunConfig, overrides: Overrides = (), *, disabled: Sequence[str] = ()
) -> Assembly:
    """Reads and checks a configuration, loads plugins and binds the parts; loads no weights."""
    if isinstance(config, RunConfig):
        if overrides:
            raise ConfigError("overrides: only a configuration file can be overridden; change the RunConfig itself")
        return assemble(config, load_registry_for(config.model_dump(), disabled))
    raw = read_config(config, overrides)
    registry = load_registry_for(raw, disabled)
    return assemble(validate(RunConfig, raw, "", str(config)), registry, str(config))


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
    run.restore_weights(checkpoint.tensors, checkpoint.state)
    return run


def evaluate(path: str | Path, overrides: Overrides = (), *, disabled: Sequence[str] = ()) -> dict[str, float]:
    """Computes the held-out metrics of a run's folder or of a configuration's start model."""
    run = load_run(path, overrides, disabled=disabled)
    if not run.held_out:
        raise ConfigError(f"{path}: data.eval: missing; it names the held-out records to evaluate on")
    return measure(run)[0]


def _find_start(output: Path, *, resume: bool, overwrite: bool) -> Path | None:
    """Finds the checkpoint to go on from, or None to start anew.

    Raises:
        ConfigError: the output folder is in use, and nothing says what to do with it.
        CheckpointError: see `_find_checkpoint`.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other")
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output: {output} is a file; give a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return None
    if not (output / CONFIG).is_file():
        raise ConfigError(f"output: {output} holds files that are not of a run; choose another folder")
    if resume:
        return _find_checkpoint(output / CHECKPOINTS)
    if not overwrite:
        raise ConfigError(f"output: {output} holds a run; go on with --resume, replace it with --overwrite")
    return None


def _find_checkpoint(root: Path) -> Path | None:
    """Finds the newest checkpoint; None if the run was killed before its first one.

    Raises:
        CheckpointError: there are only damaged ones, which starting anew would remove.
    """
    latest = find_latest(root)
    if latest is None and any(".tmp-" not in path.name for path in root.glob("step-*")):
        raise CheckpointError(f"{root}: every checkpoint is damaged; start anew with --overwrite")
    return latest


def _open_output(run: Run, *, anew: bool) -> None:
    """Writes what the run is; only now, with everything loaded, an older run may go."""
    if not run.accelerator.is_main_process:
        return
    run.output.mkdir(parents=True, exist_ok=True)
    if anew:
        for stale in (CHECKPOINTS, MODEL, MERGED, SAMPLES):
            shutil.rmtree(run.output / stale, ignore_errors=True)
    (run.output / CONFIG).write_text(dump_config(run.config), encoding="utf-8")
    write_provenance(run)


__all__ = ["check", "evaluate", "load_assembly", "load_run", "train"]
