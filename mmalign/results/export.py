"""What is left of a finished run: the model in its users' format, a model card, and the results as JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from mmalign.config.run_config import dump_config
from mmalign.plugins.loading import provenance
from mmalign.results.report import ModelCard, write_model_card
from mmalign.results.sample_grids import copy_grids
from mmalign.results.writing import replace_text
from mmalign.run import Run

MODEL = "model"
MERGED = "merged"
RESULTS = "results.json"


def export_run(run: Run) -> None:
    """Writes `model/` (adapter or weights, heads, model card), `merged/` if asked for, and `results.json`.

    Only the main process writes.
    """
    if run.accelerator.is_main_process:
        _write_folder(run.output / MODEL, lambda folder: _write_model(run, folder))
        if run.config.checkpoint.merged:
            save_merged = run.assembly.modality.save_merged
            _write_folder(run.output / MERGED, lambda folder: save_merged(run.model, str(folder)))
        _write_results(run)
        run.hooks.on_report_writing(run=run, directory=run.output)
    run.accelerator.wait_for_everyone()


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Writes beside the final place and moves it there, so that a folder is whole or absent."""
    partial = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _write_model(run: Run, folder: Path) -> None:
    run.assembly.modality.save(run.model, str(folder))
    save_heads(run, folder)
    write_card(run, folder, adapter=run.assembly.modality.adapter)


def save_heads(run: Run, folder: Path) -> None:
    """Writes the heads that were trained beside the network, if there are any, to `heads.safetensors`."""
    if len(run.policy.heads):
        tensors = {name: value.detach().cpu().contiguous() for name, value in run.policy.heads.state_dict().items()}
        save_file(tensors, folder / "heads.safetensors")


def _write_results(run: Run) -> None:
    rows = [{"prompt": prompt, "before": old, "after": new} for prompt, old, new in run.examples]
    results = {"steps": run.step, "before": run.before, "after": run.after, "examples": rows}
    text = json.dumps(results, indent=2, ensure_ascii=False)
    replace_text(run.output / RESULTS, f"{text}\n")


def write_card(run: Run, folder: Path, *, adapter: bool) -> None:
    """Writes the model card of an adapter or of a whole network."""
    card = ModelCard(
        base_model=run.model.name,
        objective=[objective.spec.name for objective in run.objectives],
        config=dump_config(run.config),
        steps=run.step,
        adapter=adapter,
        plugins={item["name"]: item["version"] for item in provenance(run.assembly.registry.plugin_set)},
        before=run.before,
        after=run.after,
        examples=run.examples,
        grids=copy_grids(run, folder),
        papers=run.assembly.papers,
        changes=run.changes,
        notes=run.assembly.modality.notes(),
    )
    write_model_card(folder, card)
