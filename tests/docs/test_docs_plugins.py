"""docs/plugins.md: its example works as it is printed, and it names every hook, spec and status."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from feedback_records import write_feedback
from safetensors.torch import load_file

import mmalign
from mmalign.config.data import DataConfig
from mmalign.config.run_config import Component, RunConfig
from mmalign.config.validation import validate_parameters
from mmalign.import_strings import load_object
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.plugins.discovery import HOOKS
from mmalign.plugins.loading import Status
from mmalign.plugins.registry import HOOK_OF, load_registry
from mmalign.sources.format_choice import BoundLayout, Formats
from mmalign.sources.layouts import LayoutWriter
from mmalign.sources.source import open_source

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")


def block(language: str, index: int) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)[index]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loss.py").write_text(block("python", 0), encoding="utf-8")
    return tmp_path


def test_example_file_is_a_plugin_whose_loss_computes_what_it_says(folder: Path) -> None:
    config = yaml.safe_load(block("yaml", 0))
    registry = load_registry(files=[Path(os.path.normpath(file)) for file in config["plugins"]], strict=True)
    component = Component.model_validate(config["objective"])
    spec = registry.find("objective", component.name, "objective.name").spec
    parameters = validate_parameters(spec, component.parameters, "objective").model_dump()
    losses, metrics = load_object(spec.loss)(torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0]), **parameters)
    torch.testing.assert_close(losses, torch.tensor([0.0, 1.5]))
    torch.testing.assert_close(metrics["ahead"], torch.tensor([1.0, -1.0]))


def test_example_test_passes(folder: Path) -> None:
    exec(compile(block("python", 2), "docs/plugins.md", "exec"), {})


def test_example_of_a_trained_quantity_trains(
    folder: Path, tiny_text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "my_head.py").write_text(block("python", 1), encoding="utf-8")
    write_feedback(folder / "records.jsonl", 4)
    config = yaml.safe_load(block("yaml", 1)) | {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": "records.jsonl"}},
        "output": "run",
    }
    config["train"] |= {"steps": 20, "batch_size": 4, "head_learning_rate": 1e-2}
    run = mmalign.train(RunConfig.model_validate(config))
    heads = load_file(run.output / "model" / "heads.safetensors")
    assert heads["step_quality.layers.0.weight"].shape == (8, 32)
    losses = [row["quality/loss"] for row in read_metrics(run.output) if row["kind"] == "train"]
    assert losses[-1] < losses[0] / 2


def test_example_of_a_format_reads_and_writes(folder: Path) -> None:
    (folder / "my_format.py").write_text(block("python", 3), encoding="utf-8")
    (folder / "quiz.csv").write_text("question,best,worst,source\nq,a,b,x\n", encoding="utf-8")
    registry = load_registry(files=[Path("my_format.py")], strict=True)
    (record,) = open_source(DataConfig(path="quiz.csv"), registry=registry)
    assert (record.pair_indices()[0][:2], record.metadata) == ((0, 1), {"source": "x"})
    spec, layout = Formats(registry).build({"name": "quiz"}, "--to")
    writer = LayoutWriter(BoundLayout(spec, layout))
    assert writer.write(record) == [{"id": "row-0", "source": "x", "question": "q", "best": "a", "worst": "b"}]
    assert writer.lost == {}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_named(hook: str) -> None:
    assert f"`{hook}`" in PAGE


def test_every_spec_and_status_is_named() -> None:
    names = [spec_class.__name__ for _, spec_class in HOOK_OF.values()] + list(get_args(Status))
    assert [name for name in names if f"`{name}`" not in PAGE] == []
