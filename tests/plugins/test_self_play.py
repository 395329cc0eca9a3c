"""Stored responses against samples of earlier policies: pairs, whose network samples, and SePPO as a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_PLUGIN
from image_records import write_image_pairs
from objective_runs import move_away, start

import mmalign
from mmalign import ConfigError, DataError, Record, RunConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.training.rounds import begin_round

PAST = {"strategy": "past", "every": 1, "keep": 3}


def toy_config(folder: Path, rows: list[dict[str, Any]], **sections: Any) -> RunConfig:
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "modality": {"name": "toy"},
        "data": {"train": {"path": str(folder / "records.jsonl")}},
        "objective": {"name": "dpo", "beta": 0.5},
        "collector": {"name": "self_play", "group_size": 2},
        "decoding": {"name": "sample", "max_steps": 6},
        "reference": {"strategy": "sync", "every": 2},
        "train": {"steps": 3, "batch_size": 4, "learning_rate": 0.05},
        "plugins": [str(TOY_PLUGIN)],
        "output": str(folder / "run"),
    }
    return RunConfig.model_validate(config | sections)


def demonstrations(count: int = 4) -> list[dict[str, Any]]:
    return [Record.from_text("p" * n, ["0123"], id=str(n)).to_dict() for n in range(1, count + 1)]


def test_every_stored_response_is_chosen_over_every_sample(tmp_path: Path) -> None:
    batch, _ = begin_round(start(toy_config(tmp_path, demonstrations())))
    values = batch.quantities
    assert len(values["pairs"]) == 4 * 2
    assert not values["sampled"][values["pairs"][:, 0]].any() and values["sampled"][values["pairs"][:, 1]].all()
    assert torch.equal(values["prompt_index"][values["pairs"][:, 0]], values["prompt_index"][values["pairs"][:, 1]])


def test_rejected_responses_of_the_data_are_left_out(tmp_path: Path) -> None:
    record = Record.from_text("p", ["0123", "33", "12"], id="a").to_dict()
    record["labels"] = [{"kind": "pair", "order": [["r2"], ["r1"]]}]
    batch, _ = begin_round(start(toy_config(tmp_path, [{**record, "id": str(n)} for n in range(4)])))
    stored = [one.text for one in batch.records[0].responses[:1]]
    assert stored == ["12"] and len(batch) == 4 * 3


def test_samples_are_those_of_the_reference(tmp_path: Path) -> None:
    """The policy would say nothing but 3; the reference, the start, knows all digits."""
    run = start(toy_config(tmp_path, demonstrations()))
    run.policy.network.table.data[..., 3] += 50.0
    run.step += 1
    batch, _ = begin_round(run)
    samples = [one.text for record in batch.records for one in record.responses[1:]]
    assert any(set(text) != {"3"} for text in samples)
    sampled = batch.quantities["sampled"][:, None] & batch.quantities["step_mask"]
    assert torch.equal(batch.quantities["behaviour_logps"][sampled], batch.quantities["reference_logps"][sampled])


def test_spin_is_a_configuration(tmp_path: Path) -> None:
    run = mmalign.train(toy_config(tmp_path, demonstrations()))
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert not any(name.startswith("sampler_gap/m") for row in rows for name in row)


def test_a_prompt_without_a_stored_response_is_named(tmp_path: Path) -> None:
    rows = [{**row, "responses": []} for row in demonstrations()]
    with pytest.raises(DataError, match=r"record .*: no stored response to set against samples"):
        mmalign.train(toy_config(tmp_path, rows))


def test_a_server_cannot_sample_the_reference(tmp_path: Path) -> None:
    engine = {"name": "openai", "base_url": "http://localhost:1/v1", "model": "x"}
    with pytest.raises(ConfigError, match=r"cannot sample the reference|engine"):
        mmalign.check(toy_config(tmp_path, demonstrations(), engine=engine))


# -- SePPO


@pytest.fixture
def seppo(tmp_path: Path, tiny_class_unet: Path) -> Any:
    images = tmp_path / "images"
    images.mkdir()
    pairs = write_image_pairs(images, 8)

    def make(name: str, steps: int) -> RunConfig:
        return RunConfig.model_validate(
            {
                "modality": {
                    "name": "diffusion",
                    "family": {"name": "class_unet", "null_class": 3},
                    "model": str(tiny_class_unet),
                    "noising": {"noise": "independent"},
                },
                "data": {"train": {"path": str(pairs)}},
                "objective": {"name": "seppo", "beta": 100.0},
                "collector": {"name": "self_play"},
                "reference": PAST,
                "decoding": {"name": "diffusion", "max_steps": 2},
                "train": {"steps": steps, "batch_size": 4, "learning_rate": 1e-3},
                "output": str(tmp_path / name),
            }
        )

    return make


def test_seppo_trains_and_resumes_exactly(seppo: Any) -> None:
    whole = mmalign.train(seppo("whole", 4))
    rows = [row for row in read_metrics(whole.output) if row["kind"] == "train"]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4), "the policy is the reference"
    assert all(-1 <= row["anchors"] <= 1 and math.isfinite(row["loss"]) for row in rows)
    for step, row in enumerate(rows):
        assert row["reference/step"] in range(max(0, step - 2), step + 1)
    mmalign.train(seppo("parts", 2))
    resumed = mmalign.train(seppo("parts", 4), resume=True)
    for name, weight in resumed.trainable().items():
        assert torch.equal(weight, whole.trainable()[name]), name


def test_a_pair_shares_its_level_and_not_its_noise(seppo: Any) -> None:
    run = start(seppo("levels", 2))
    move_away(run, 0.01)
    batch, _ = begin_round(run)
    for chosen, rejected in batch.quantities["pairs"].tolist():
        one, two = batch.responses[chosen].tensors, batch.responses[rejected].tensors
        assert torch.equal(one["timesteps"], two["timesteps"])
        assert torch.equal(one["condition|class"], two["condition|class"])
        assert not torch.equal(one["target"], two["target"])


def test_with_shared_noise_a_pair_shares_it(seppo: Any) -> None:
    config = seppo("shared", 2)
    config = config.model_copy(
        update={"modality": type(config.modality).model_validate({**config.modality.model_dump(), "noising": {}})}
    )
    batch, _ = begin_round(start(config))
    for chosen, rejected in batch.quantities["pairs"].tolist():
        torch.testing.assert_close(
            batch.responses[chosen].tensors["target"], batch.responses[rejected].tensors["target"]
        )
