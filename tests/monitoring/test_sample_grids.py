"""Grids of held-out samples in a run: the start beside each step, the same noise, trackers, the model card."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mmalign
from mmalign.results.report import ModelCard, render_model_card
from mmalign.results.sample_grids import start_file, write_grid

PLUGIN = Path(__file__).parents[1] / "image_toy_plugin.py"


@pytest.fixture
def recipe(toy_online: Callable[..., dict[str, Any]], write_config: Callable[..., Path], tmp_path: Path) -> Path:
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "{"x" * (1 + n % 4)}"}}\n' for n in range(8)))
    prompts = {"path": str(tmp_path / "prompts.jsonl")}
    config = toy_online(
        modality={"name": "toy_image"},
        plugins=[str(PLUGIN)],
        data={"train": prompts, "eval": prompts},
        rewards=[{"name": "brightness"}],
        train={"steps": 4, "batch_size": 4, "learning_rate": 0.5},
        evaluation={"every": 2, "evaluators": [{"name": "generation"}, {"name": "samples", "prompts": 3}]},
    )
    return write_config(config)


def cells(file: Path, rows: int) -> list[list[Any]]:
    """Cuts a grid into its images."""
    sheet = np.asarray(Image.open(file))
    columns = [column for column in (8, 208) if column + 192 <= sheet.shape[1]]
    tops = [4 + 16 + row * 216 + 16 for row in range(rows)]
    return [[sheet[top : top + 128, column : column + 192] for column in columns] for top in tops]


def test_every_evaluation_shows_the_start_beside_now(recipe: Path, tmp_path: Path) -> None:
    run = mmalign.train(recipe)
    folder = tmp_path / "run" / "samples"
    assert sorted(path.name for path in folder.glob("*.png")) == [f"step-00000{step}.png" for step in (0, 2, 4)]
    assert len(list((folder / "start").iterdir())) == 3
    first, last = (cells(folder / f"step-00000{step}.png", 3) for step in (0, 4))
    starts = [np.asarray(Image.open(start_file(folder, record))) for record in run.held_out[:3]]
    for row in range(3):
        assert (first[row][0] == last[row][0]).all(), "the start stays what it was"
        assert (last[row][0][::64, ::64, 0] == starts[row]).all(), "64 pixels of the sheet for each of the image"
    assert any((last[row][0] != last[row][1]).any() for row in range(3)), "training has changed something"
    assert run.after["generation/reward"] > run.before["generation/reward"]
    assert run.examples == []


def test_without_training_nothing_changes(recipe: Path, tmp_path: Path) -> None:
    """The noise is the same each time, also where other evaluators sampled before."""
    mmalign.train(recipe, {"train.learning_rate": 1e-12, "evaluation.evaluators.0.count": 3})
    for row in cells(tmp_path / "run" / "samples" / "step-000004.png", 3):
        assert (row[0] == row[1]).all()


def test_samples_leave_the_random_numbers_of_others_alone(recipe: Path, tmp_path: Path) -> None:
    alone = mmalign.train(recipe, {"evaluation.evaluators": [{"name": "generation"}]})
    both = [{"name": "samples"}, {"name": "generation"}]
    after = mmalign.train(recipe, {"evaluation.evaluators": both}, overwrite=True)
    assert alone.after == after.after


def test_a_resumed_run_still_knows_its_start(recipe: Path, tmp_path: Path) -> None:
    mmalign.train(recipe, {"output": str(tmp_path / "whole")})
    mmalign.train(recipe, {"train.steps": 2, "output": str(tmp_path / "parts")})
    mmalign.train(recipe, {"output": str(tmp_path / "parts")}, resume=True)
    one, other = (tmp_path / name / "samples" / "step-000004.png" for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()
    for file in (tmp_path / "parts" / "samples" / "start").iterdir():
        file.unlink()
    mmalign.train(recipe, {"output": str(tmp_path / "parts"), "train.steps": 6}, resume=True)
    lost = cells(tmp_path / "parts" / "samples" / "step-000006.png", 3)
    assert all((row[0] == 255).all() for row in lost), "an empty place, and no stop"


def test_a_record_that_is_lost_moves_no_start_beside_another(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "x"}\n{"prompt": "xx"}\n')
    run = mmalign.train(recipe, {"train.steps": 2, "train.batch_size": 1})
    write_grid(run, [(run.held_out[1], Image.new("L", (3, 2), 255))])
    (row,) = cells(tmp_path / "run" / "samples" / "step-000002.png", 1)
    start = np.asarray(Image.open(start_file(tmp_path / "run" / "samples", run.held_out[1])))
    assert (row[0][::64, ::64, 0] == start).all() and (row[1] == 255).all()


def test_a_new_run_keeps_no_grid_of_an_older_one(recipe: Path, tmp_path: Path) -> None:
    mmalign.train(recipe)
    mmalign.train(recipe, {"train.steps": 1}, overwrite=True)
    names = sorted(path.name for path in (tmp_path / "run" / "samples").glob("*.png"))
    assert names == ["step-000000.png", "step-000001.png"]


def test_the_model_card_shows_the_first_and_the_last_grid(recipe: Path, tmp_path: Path) -> None:
    mmalign.train(recipe)
    model = tmp_path / "run" / "model"
    card = (model / "README.md").read_text()
    assert "![start](samples/step-000000.png)" in card
    assert "![start and step 4](samples/step-000004.png)" in card
    copied = sorted(path.name for path in (model / "samples").iterdir())
    assert copied == ["step-000000.png", "step-000004.png"]


def test_titles_of_grids_are_escaped() -> None:
    card = ModelCard(base_model="", objective=["dpo"], config="", steps=1, adapter=False, grids=[("<b>](x", "a.png")])
    assert "![&lt;b&gt;\\](x](a.png)" in render_model_card(card)


def test_tensorboard_gets_the_grids(recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        mmalign.train(recipe, {"trackers": ["tensorboard"]})
    (folder,) = {path.parent for path in (tmp_path / "run").rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    images = [event for tag in events.Tags()["images"] for event in events.Images(tag)]
    assert [event.step for event in images] == [0, 2, 4]
    assert (images[-1].width, images[-1].height) == Image.open(tmp_path / "run/samples/step-000004.png").size


def test_texts_become_examples_instead(
    toy_online: Callable[..., dict[str, Any]], write_config: Callable[..., Path], tmp_path: Path
) -> None:
    evaluation = {"evaluators": [{"name": "samples", "prompts": 2}]}
    run = mmalign.train(write_config(toy_online(evaluation=evaluation)))
    assert not (tmp_path / "run" / "samples").exists()
    assert [prompt for prompt, _, _ in run.examples] == ["x", "xx"]
