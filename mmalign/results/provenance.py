"""What a run was made with: versions, plugins, seeds and data fingerprints, in `run.json`."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from typing import Any

from accelerate.utils import gather_object

from mmalign.data.records import Record
from mmalign.errors import PluginError
from mmalign.masking import mask_values
from mmalign.plugins.loading import provenance
from mmalign.results.writing import replace_text
from mmalign.run import Run
from mmalign.versions import installed_versions


def write_provenance(run: Run) -> None:
    """Writes `run.json` into the run's folder."""
    text = json.dumps(mask_values(collect_provenance(run)), indent=2, ensure_ascii=False)
    replace_text(run.output / "run.json", text + "\n")


def collect_provenance(run: Run) -> dict[str, Any]:
    """Collects what somebody needs to repeat the run, as JSON values."""
    return {
        "versions": {"python": platform.python_version(), **installed_versions()},
        "plugins": provenance(run.assembly.registry.plugin_set),
        "seed": run.config.train.seed,
        "model": run.model.name,
        "teachers": run.loaded.get("teachers", {}),
        "encoding": run.loaded.get("encoding"),
        "loaded": run.loaded,
        "changes": run.changes,
        "rewards": list(run.backend.reward_names),
        "data": {
            "train": run.source.fingerprint,
            "eval": _hash_records(run.held_out),
            "quarantined": run.source.quarantined,
        },
        "processes": run.accelerator.num_processes,
        "device": str(run.accelerator.device),
        "papers": dict(run.assembly.papers),
    }


def _hash_records(records: Sequence[Record]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.to_json().encode("utf-8", errors="surrogatepass"))
    return digest.hexdigest()


def check_same_plugins(run: Run) -> None:
    """Checks that all processes loaded the same plugins in the same versions.

    Raises:
        PluginError: they did not; a run would compute different things on different machines.
    """
    if run.accelerator.num_processes == 1:
        return
    mine = [(item["name"], item["version"]) for item in provenance(run.assembly.registry.plugin_set)]
    everyone = gather_object([mine])
    if any(other != everyone[0] for other in everyone):
        raise PluginError(f"processes loaded different plugins: {everyone}; install the same versions everywhere")
