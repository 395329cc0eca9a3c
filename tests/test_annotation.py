"""`mmalign score`: quantities of a trained run as scores of records, once or in several passes with dropout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transforming import compared, transform
from typer.testing import CliRunner

import mmalign
from mmalign import ConfigError, DataError, Record
from mmalign.cli.main import app
from mmalign.config.data import DataConfig
from mmalign.contract.forward_plan import ForwardPlan
from mmalign.sources.source import open_source
from mmalign.training.annotation import score_records

RECORDS = [
    compared(
        Record.from_text(f"Question {index}?", ["A good answer.", "bad", f"fair {index}"], id=f"p{index}"), ("r0", "r1")
    )
    for index in range(6)
]

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path, tiny_text_model: Path) -> WriteRun:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(f"{record.to_json()}\n" for record in RECORDS))

    def write(objective: str, *, dropout: float = 0.0, **sections: Any) -> Path:
        config = {
            "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 4, "dropout": dropout}},
            "data": {"train": {"path": str(data)}},
            "objective": {"name": objective},
            "train": {"steps": 4, "batch_size": 6, "learning_rate": 1e-2, "dtype": "float32"},
            "output": str(tmp_path / "run"),
            **sections,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


def scores_of(record: Record, name: str) -> dict[str, Any]:
    return {row.item: row.value if row.level == "response" else row.values for row in record.scores if row.name == name}


def test_a_quantity_of_responses_becomes_their_score(write_run: WriteRun) -> None:
    run = mmalign.train(write_run("reward_model"))
    scored = list(score_records(run, RECORDS, "scores", name="quality"))
    with torch.no_grad():
        run.policy.eval()
        expected = run.policy(run.backend.encode(RECORDS, targets_only=False).responses, ForwardPlan.of("scores"))[
            "scores"
        ]
    found = [value for record in scored for value in scores_of(record, "quality").values()]
    assert found == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-6)
    assert [list(scores_of(record, "quality")) for record in scored] == [["r0", "r1", "r2"]] * 6
    assert [record.labels for record in scored] == [record.labels for record in RECORDS]
    again = list(score_records(run, scored, "scores", name="quality", chunk=1))
    assert [len(record.scores) for record in again] == [3] * 6


def test_passes_with_dropout_differ_and_feed_upo(write_run: WriteRun) -> None:
    run = mmalign.train(write_run("pair_classifier", dropout=0.5))
    torch.manual_seed(0)
    scored = list(score_records(run, RECORDS, "pair_probabilities", name="pair_probability", passes=5))
    for record in scored:
        ((item, values),) = scores_of(record, "pair_probability").items()
        assert item == "r0" and len(values) == 5 and len(set(values)) > 1
        assert all(0 <= value <= 1 for value in values)
    smoothed = transform(scored, "upo", mu=2.0)
    smoothing = [scores_of(record, "label_smoothing")["r0"][0] for record in smoothed]
    assert all(0 < value <= 0.5 for value in smoothing)


def test_without_dropout_nothing_is_uncertain(write_run: WriteRun, caplog: pytest.LogCaptureFixture) -> None:
    run = mmalign.load_run(write_run("pair_classifier"))
    scored = list(score_records(run, RECORDS, "pair_probabilities", name="pair_probability", passes=3))
    assert "all 3 passes gave the same pair_probabilities: the model has no dropout" in caplog.text
    smoothed = transform(scored, "upo")
    assert [scores_of(record, "label_smoothing")["r0"][0] for record in smoothed] == pytest.approx([0.0] * 6)


def test_a_classifier_learns_its_pairs(write_run: WriteRun) -> None:
    train = {"steps": 40, "batch_size": 6, "learning_rate": 1e-2, "dtype": "float32"}
    run = mmalign.train(write_run("pair_classifier", train=train))
    scored = score_records(run, RECORDS, "pair_probabilities", name="p")
    assert all(scores_of(record, "p")["r0"] > 0.9 for record in scored)


def test_what_cannot_be_scored_is_said(write_run: WriteRun, toy_online: Any, write_config: Any) -> None:
    run = mmalign.load_run(write_run("pair_classifier"))
    with pytest.raises(ConfigError, match="computes no 'pair_probabilites' of responses or pairs; did you mean"):
        next(score_records(run, RECORDS, "pair_probabilites", name="p"))
    with pytest.raises(DataError, match="'p0': a response is chosen in several pairs"):
        next(score_records(run, [compared(RECORDS[0], ("r0", "r2"))], "pair_probabilities", name="p"))
    online = mmalign.load_run(write_config(toy_online()))
    with pytest.raises(ConfigError, match="a run that samples its responses"):
        next(score_records(online, RECORDS, "lengths", name="p"))


def test_the_command_writes_values_that_a_lol_draws_by(write_run: WriteRun, tmp_path: Path) -> None:
    rows = []
    for record in RECORDS:
        row = record.to_dict()
        ratings = {"r0": 1.0, "r1": 0.0, "r2": 0.4}
        row["scores"] = [{"item": i, "name": "reward", "level": "response", "value": v} for i, v in ratings.items()]
        rows.append(json.dumps(row))
    rated, valued = tmp_path / "rated.jsonl", tmp_path / "made" / "valued.jsonl"
    rated.write_text("\n".join(rows) + "\n")
    run = mmalign.train(write_run("prompt_value", data={"train": {"path": str(rated)}}))
    options = ["--data", str(rated), "--quantity", "prompt_values", "--name", "value", "--output", str(valued)]
    result = CliRunner().invoke(app, ["score", str(run.output), *options], catch_exceptions=False)
    assert result.exit_code == 0
    records = list(open_source(DataConfig(path=str(valued)), where="test"))
    values = [scores_of(record, "value") for record in records]
    assert all(len(set(own.values())) == 1 and 0 < own["r0"] < 1 for own in values)
    drawn = transform(records, "a_lol")
    assert drawn and all(record.responses[0].rid != "r1" for record in drawn)
    path = write_run(
        "a_lol",
        data={"train": {"path": str(valued), "transforms": {"name": "a_lol"}}},
        quantities=[{"name": "rating_advantages", "value": "value"}],
        output=str(tmp_path / "aligned"),
    )
    assert mmalign.train(path).step == 4
