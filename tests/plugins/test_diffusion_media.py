"""Images in runs of the diffusion modality: what it samples it can train on, and a broken image costs one record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_records import write_image_pairs
from PIL import Image
from typer.testing import CliRunner

import mmalign
from mmalign import MediaError, Record
from mmalign.cli.main import app
from mmalign.monitoring.metrics_log import read_metrics


@pytest.fixture
def config(tmp_path: Path, tiny_class_unet: Path) -> dict[str, Any]:
    path = write_image_pairs(tmp_path, 4)
    family = {"name": "class_unet", "null_class": 3}
    return {
        "modality": {"name": "diffusion", "family": family, "model": str(tiny_class_unet)},
        "data": {"train": {"path": str(path)}, "eval": {"path": str(path)}},
        "objective": {"name": "dpo", "beta": 200.0},
        "decoding": {"name": "diffusion", "max_steps": 3},
        "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3},
        "evaluation": {"evaluators": [{"name": "samples", "prompts": 2}]},
        "output": str(tmp_path / "run"),
    }


def test_sampled_images_are_written_and_trained_on(
    config: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_config(config)
    mmalign.train(recipe)
    assert Image.open(tmp_path / "run" / "samples" / "step-000002.png").width == 408
    made = tmp_path / "made.jsonl"
    command = ["generate", str(tmp_path / "run"), "--prompt", "1", "--prompt", "2", "--count", "2"]
    result = CliRunner().invoke(app, [*command, "--output", str(made)], catch_exceptions=False)
    assert result.exit_code == 0
    records = [Record.from_json(line) for line in made.read_text().splitlines()]
    assert all(one.width == 8 and one.sha256 for record in records for one in record.media)
    data = json.dumps({"train": {"path": str(made)}})
    run = mmalign.train(recipe, [f"data={data}", "objective={name: sft}", "train.batch_size=2"], overwrite=True)
    assert run.step == 2


def test_a_cut_image_costs_its_record_and_no_more(
    config: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    file = tmp_path / "dark-2.png"
    file.write_bytes(file.read_bytes()[:60])
    recipe = write_config(config)
    with pytest.raises(MediaError, match=r"record 'p2', response 'dark': .*dark-2.png: damaged or cut off"):
        mmalign.train(recipe)
    quarantine = {"data.train.on_error": "quarantine", "data.eval.on_error": "quarantine"}
    mmalign.train(recipe, quarantine, overwrite=True)
    rows = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    # Set aside before the first step, so that no step meets it.
    assert [row["unreadable"] for row in rows] == [0.0, 0.0]
    assert any("p2" in file.read_text() for file in tmp_path.rglob("*.quarantine.jsonl"))
