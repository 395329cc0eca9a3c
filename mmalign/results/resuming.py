"""Going on from a checkpoint: compared with what it was trained with, put back, and what has changed noted.

A run that is finished is left as it is, to the last byte.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from typing import Any, cast

from mmalign.errors import CheckpointError
from mmalign.planning.assembly import Assembly
from mmalign.results.changes import Change, check_changes, find_changes
from mmalign.results.checkpoint import Checkpoint
from mmalign.results.export import MODEL, RESULTS
from mmalign.results.loaded import describe_model
from mmalign.run import Run

logger = logging.getLogger(__name__)


def check_keys(checkpoint: Checkpoint, assembly: Assembly, allowed: Collection[str]) -> None:
    """Compares the configuration alone with that of a checkpoint, before anything is loaded; see `go_on`."""
    where = _name(assembly.config.output, checkpoint)
    check_changes(find_changes(checkpoint.state, assembly, {}, where), allowed, where)


def go_on(run: Run, checkpoint: Checkpoint, allowed: Collection[str]) -> None:
    """Puts a checkpoint back into a run that was built from its configuration, and notes what has changed.

    Args:
        allowed: keys that may change though they shaped past steps.

    Raises:
        CheckpointError: another key has changed, or the checkpoint does not fit the model.
    """
    where = _name(run.output, checkpoint)
    state = checkpoint.state
    changes = check_changes(find_changes(state, run.assembly, run.loaded, where), allowed, where)
    if "loaded" not in state:
        logger.warning("%s is from before checkpoints held digests of what was loaded; only keys are compared", where)
    run.restore(checkpoint.tensors, state)
    for change in changes:
        logger.warning("from step %d on: %s", run.step, change)
    run.changes = [*state.get("changes", ()), *(_note(change, run.step) for change in changes)]


def check_same_model(run: Run, state: Mapping[str, Any]) -> None:
    """Checks that a run that only generates or evaluates has the base model that a checkpoint was trained from.

    Raises:
        CheckpointError: another key of the modality, other weights, or another encoding.
    """
    where = f"{run.output}: the checkpoint"
    loaded = describe_model(run) if "loaded" in state else {}
    if loaded and loaded["dtype"] != state["loaded"].get("dtype"):
        # Rounded to another precision the same weights are others.
        del loaded["weights"], loaded["dtype"]
    changes = [one for one in find_changes(state, run.assembly, loaded, where) if _is_modality(one.key)]
    if changes:
        lines = "\n".join(f"  {change}" for change in changes)
        raise CheckpointError(f"{where} belongs to another model:\n{lines}")


def is_complete(run: Run) -> bool:
    """Returns whether a restored run was finished and exported, so that nothing is left to do."""
    return run.finished and (run.output / MODEL).is_dir() and _read_results(run).get("steps") == run.step


def recall_results(run: Run) -> None:
    """Reads what a finished run measured."""
    results = _read_results(run)
    run.before, run.after = dict(results["before"]), dict(results["after"])
    rows = results["examples"]
    run.examples_before = [(row["prompt"], row["before"]) for row in rows]
    run.examples_after = [(row["prompt"], row["after"]) for row in rows]


def _name(output: object, checkpoint: Checkpoint) -> str:
    return f"{output}: the checkpoint of step {checkpoint.step}"


def _is_modality(key: str) -> bool:
    return key == "modality" or key.startswith("modality.")


def _note(change: Change, step: int) -> dict[str, Any]:
    noted = {"step": step, "key": change.key, "old": change.old, "new": change.new}
    return noted | ({"allowed": True} if change.allowed else {})


def _read_results(run: Run) -> dict[str, Any]:
    try:
        return cast("dict[str, Any]", json.loads((run.output / RESULTS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
