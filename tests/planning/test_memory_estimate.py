"""What `mmalign check` says of memory, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mmalign
from mmalign import RunConfig
from mmalign.training.inspection import Inspection

PAIR = {"prompt": "Say a", "chosen": "good", "rejected": "bad"}


def inspect(folder: Path, model: Path, objective: str, lora: dict[str, int] | None = None, **train: Any) -> Inspection:
    data = folder / "data.jsonl"
    data.write_text(json.dumps(PAIR) + "\n")
    config = {
        "modality": {"name": "text", "model": str(model), "lora": lora},
        "data": {"train": {"path": str(data)}},
        "objective": {"name": objective},
        "train": {"steps": 1, "batch_size": 1, "dtype": "float32", **train},
        "output": str(folder / "run"),
    }
    return mmalign.check(RunConfig.model_validate(config))


@pytest.mark.parametrize(("optimiser", "number"), [("adamw", 4), ("adafactor", 2)])
def test_moments_of_the_optimiser_count(optimiser: str, number: int, tiny_text_model: Path, tmp_path: Path) -> None:
    inspection = inspect(tmp_path, tiny_text_model, "simpo", optimiser=optimiser)
    assert inspection.parameters is not None
    every, trained = inspection.parameters
    assert every == trained
    # The weights and their gradient; AdamW keeps two moments of each.
    assert inspection.memory == every * 4 * number


def test_a_copy_of_the_network_as_reference_counts(tiny_text_model: Path, tmp_path: Path) -> None:
    alone, compared = (inspect(tmp_path, tiny_text_model, name) for name in ("simpo", "dpo"))
    assert alone.parameters == compared.parameters
    assert alone.parameters is not None and alone.memory is not None and compared.memory is not None
    assert compared.memory - alone.memory == alone.parameters[0] * 4


def test_an_adapter_needs_no_copy_and_few_moments(tiny_text_model: Path, tmp_path: Path) -> None:
    inspection = inspect(tmp_path, tiny_text_model, "dpo", {"rank": 2})
    assert inspection.parameters is not None
    every, trained = inspection.parameters
    assert 0 < trained < every / 2
    assert inspection.memory == every * 4 + trained * 12
