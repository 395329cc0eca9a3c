"""Writes the model of a run to a folder of its own at any time after: the adapter, or the whole network with it merged.

The folder is written beside its place and renamed, so that it is whole or absent.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmalign.contract.modality import Modality
from mmalign.errors import ConfigError
from mmalign.results.comparison import RunRecord
from mmalign.results.export import save_heads, write_card
from mmalign.run import Run


def write_model_folder(run: Run, record: RunRecord, output: Path, *, merged: bool, dtype: torch.dtype | None) -> None:
    """Writes the model with its tokenizer or scheduler, heads and card.

    Args:
        run: with the weights to write; for a merged model in float32, so that nothing is rounded twice.
        record: what the run's folder tells of its results.
        merged: whether adapters are merged into the network.
        dtype: of the weights that are written; None for what they are in.

    Raises:
        ConfigError: the folder exists, or the modality has no merged export.
    """
    modality = run.assembly.modality
    if merged and type(modality).save_merged is Modality.save_merged:
        raise ConfigError(f"--merged: {run.assembly.config.modality.name!r} has no merged export; drop the option")
    run.before, run.after = dict(record.start), dict(record.metrics)
    run.examples_before = [(prompt, before) for prompt, before, _ in record.examples]
    run.examples_after = [(prompt, after) for prompt, _, after in record.examples]
    with new_folder(output) as folder:
        save = modality.save_merged if merged else modality.save
        save(run.model, str(folder))
        save_heads(run, folder)
        if dtype is not None:
            cast_weights(folder, dtype)
        write_card(run, folder, adapter=modality.adapter and not merged)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Gives a folder to fill, which becomes `output` if nothing is raised and is removed otherwise.

    Raises:
        ConfigError: `output` exists, or the disk refuses.
    """
    if output.exists():
        raise ConfigError(f"--output: {output} exists; give another folder, or remove it")
    partial = output.with_name(f".{output.name}.{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(output)
    except OSError as error:
        raise ConfigError(f"--output: cannot write {output}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def cast_weights(folder: Path, dtype: torch.dtype) -> None:
    """Rounds the weights of all safetensors files in a folder to `dtype`, and says so in its settings."""
    sizes = [_cast_file(file, dtype) for file in sorted(folder.glob("*.safetensors"))]
    for index in folder.glob("*.safetensors.index.json"):
        content = json.loads(index.read_text(encoding="utf-8"))
        content["metadata"]["total_size"] = sum(sizes)
        index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    settings = folder / "config.json"
    if settings.is_file():
        content = _rename_dtype(json.loads(settings.read_text(encoding="utf-8")), str(dtype).removeprefix("torch."))
        settings.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cast_file(file: Path, dtype: torch.dtype) -> int:
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata()
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    tensors = {name: one.to(dtype) if one.is_floating_point() else one for name, one in tensors.items()}
    save_file(tensors, file, metadata)
    return sum(one.nbytes for one in tensors.values())


def _rename_dtype(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return value
    keys = ("dtype", "torch_dtype")
    return {key: name if key in keys and own else _rename_dtype(own, name) for key, own in value.items()}
