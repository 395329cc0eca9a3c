"""The folder of a run: what may be done with one that is there, and how it is opened.

Nothing is written before everything is loaded but the lock, so a run that is refused leaves the folder as it was.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from mmalign.config.run_config import dump_config
from mmalign.errors import CheckpointError, ConfigError
from mmalign.masking import mask_text
from mmalign.monitoring.metrics_log import FILE as METRICS
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.results.checkpoint import find_latest
from mmalign.results.export import MERGED, MODEL, RESULTS
from mmalign.results.provenance import write_provenance
from mmalign.results.run_lock import LOCK
from mmalign.results.sample_grids import SAMPLES
from mmalign.results.writing import replace_text
from mmalign.run import Run

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"


def check_folder(output: Path) -> None:
    """Checks that a folder is a run's, or empty, or not there.

    Raises:
        ConfigError: it is a file, or holds other things.
    """
    # Not of pathlib, which raises where a name is too long.
    if os.path.exists(output) and not os.path.isdir(output):
        raise ConfigError(f"output: {output} is a file; give a folder")
    if _is_used(output) and not (output / CONFIG).is_file():
        raise ConfigError(f"output: {output} holds files that are not of a run; choose another folder")


def find_start(output: Path, *, resume: bool, overwrite: bool) -> Path | None:
    """Finds the checkpoint to go on from, or None to start anew.

    Raises:
        ConfigError: the output folder is in use, and nothing says what to do with it.
        CheckpointError: there is none to go on from, and starting anew would remove what there is.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite exclude each other")
    check_folder(output)
    if overwrite or not _is_used(output):
        return None
    if not resume:
        raise ConfigError(f"output: {output} holds a run; go on with --resume, replace it with --overwrite")
    return _find_checkpoint(output)


def _find_checkpoint(output: Path) -> Path | None:
    """Finds the newest checkpoint; None if the run was stopped before its first step."""
    root = output / CHECKPOINTS
    latest = find_latest(root)
    if latest is None and any(".tmp-" not in path.name for path in root.glob("step-*")):
        raise CheckpointError(f"{root}: every checkpoint is damaged; start anew with --overwrite")
    steps = [row["step"] for row in read_metrics(output) if row["kind"] == "train"] if latest is None else []
    if steps:
        raise CheckpointError(
            f"{output}: no checkpoint to go on from, though metrics.jsonl reaches step {max(steps)}: the run was "
            "stopped before its first one (`checkpoint.every_minutes`, `checkpoint.every`); start anew with --overwrite"
        )
    return latest


def open_output(run: Run, *, anew: bool) -> None:
    """Writes what the run is; only now, with everything loaded, an older run may go. The main process writes."""
    if not run.accelerator.is_main_process:
        return
    run.output.mkdir(parents=True, exist_ok=True)
    if anew:
        for stale in (CHECKPOINTS, MODEL, MERGED, SAMPLES):
            shutil.rmtree(run.output / stale, ignore_errors=True)
        for stale in (RESULTS, METRICS):
            (run.output / stale).unlink(missing_ok=True)
    replace_text(run.output / CONFIG, _describe_changes(run) + dump_config(run.config))
    write_provenance(run)


def _describe_changes(run: Run) -> str:
    """Writes as comments which keys had other values before the run was resumed."""
    lines = [f"# up to step {one['step']}: {one['key']}: {json.dumps(one['old'])}" for one in run.changes]
    return "".join(f"{mask_text(line)}\n" for line in lines)


def _is_used(output: Path) -> bool:
    try:
        return os.path.isdir(output) and any(path.name != LOCK for path in output.iterdir())
    except OSError as error:
        raise ConfigError(f"output: {output} cannot be read: {error.strerror or error}") from None
