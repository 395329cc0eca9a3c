"""SPO's auxiliary head: the loss, the levels of the data, and that the policy learns from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import mmalign
from mmalign import ConfigError, Model, Record
from mmalign.monitoring.metrics_log import read_metrics
from mmalign_objectives.heads.spo_degree import LevelHead, spo_degree_loss

TEXT = "Marie Curie studied radioactive elements in a small laboratory, and won two Nobel prizes for her careful work."


def test_loss_by_hand() -> None:
    """Probabilities 1/2, 1/4, 1/4 of level 0, and 1/3 each of level 2."""
    logits = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]).log()
    losses, metrics = spo_degree_loss(logits, torch.tensor([0.0, 2.0]))
    assert losses.tolist() == pytest.approx([math.log(2), math.log(3)])
    assert metrics["level_accuracies"].tolist() == [1.0, 0.0]


def test_one_level_leaves_nothing_to_tell() -> None:
    losses, _ = spo_degree_loss(torch.tensor([[3.0], [-1.0]]), torch.tensor([0.0, 0.0]))
    assert losses.tolist() == [0.0, 0.0]


def test_a_level_beyond_the_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="levels: 2, but the data have a version of level 2"):
        spo_degree_loss(torch.zeros(1, 2), torch.tensor([2.0]))


def test_the_head_reads_the_mean_state_of_the_steps() -> None:
    head = LevelHead(Model(nn.Identity(), hidden_size=2), levels=3)
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [torch.nan, torch.nan]]])
    found = head(hidden, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found, head.linear(torch.tensor([[2.0, 4.0]])))


@pytest.fixture
def write_run(tmp_path: Path, tiny_text_model: Path) -> Any:
    def write(name: str, objective: Any, **sections: Any) -> Path:
        data = tmp_path / "data.jsonl"
        record = Record.from_text("Who was she?", [TEXT, "No."], id="p0").to_dict()
        record["labels"] = [{"kind": "pair", "order": [["r0"], ["r1"]]}]
        data.write_text(Record.from_dict(record).to_json() + "\n")
        config = {
            "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
            "data": {"train": {"path": str(data), "transforms": {"name": "spo_degree", "levels": 3}}},
            "objective": objective,
            "train": {"steps": 3, "batch_size": 1, "learning_rate": 1e-2, "dtype": "float32"},
            "output": str(tmp_path / name),
            **sections,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


def final(run: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in run.trainable().items() if name.startswith("network")}


def test_without_weight_it_is_the_other_objective(write_run: Any) -> None:
    alone = mmalign.train(write_run("alone", {"name": "dpo"}))
    both = mmalign.train(write_run("both", [{"name": "dpo"}, {"name": "spo_degree", "weight": 0.0}]))
    for name, value in final(alone).items():
        torch.testing.assert_close(final(both)[name], value)


def test_head_and_policy_learn_to_tell_the_levels(write_run: Any) -> None:
    train = {"steps": 30, "batch_size": 1, "learning_rate": 1e-2, "dtype": "float32"}
    run = mmalign.train(write_run("learn", {"name": "spo_degree"}, train=train))
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert rows[0]["loss"] > 0.5 and rows[-1]["loss"] < 0.2
    assert rows[-1]["level_accuracies"] == 1.0
    lora = [value for name, value in final(run).items() if "lora_B" in name]
    assert any(value.any() for value in lora)


def test_other_responses_do_not_count(write_run: Any) -> None:
    run = mmalign.load_run(write_run("count", {"name": "spo_degree"}))
    from mmalign.training.startup import open_data

    batch = run.backend.prepare(run.backend.encode(list(open_data(run.assembly, "train"))))
    levels = batch.quantities["removal_levels"]
    assert levels[0] == 0 and levels[1].isnan() and levels[2:].tolist() == [1.0, 2.0]
    assert run.objectives[0].totals(batch).tolist() == [3.0, 3.0]
