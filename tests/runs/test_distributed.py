"""Two processes make the same updates as one: the global batch is shared, and normalised as a whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from feedback_records import write_feedback
from multimodal_models import build_tiny_multimodal_model
from multimodal_records import media_record

import mmalign
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.results.checkpoint import find_latest, load_checkpoint

# A response of very different length in each half: local means would differ from the global one.
ROWS = [
    {"prompt": f"Say {index}", "chosen": "good " * (1 + 5 * (index % 2)), "rejected": "bad " * (1 + index)}
    for index in range(8)
]
OBJECTIVES: dict[str, Any] = {
    "dpo": [{"name": "dpo"}],
    "sft": [{"name": "sft"}],
    "aot": [{"name": "aot"}],
    "aot_unpaired": [{"name": "aot_unpaired"}],
    "bco": [{"name": "bco"}],
    "reward_model": [{"name": "reward_model"}],
    "sum": [{"name": "simpo"}, {"name": "sft", "aggregation": "sequence_mean", "weight": 0.5}],
}

# Where a policy moves fast enough for its reference point; greedy samples are those of one process, whoever draws them.
COUPLED: dict[str, dict[str, Any]] = {
    "kto": {
        "objective": [{"name": "kto", "beta": 1.0, "undesirable_weight": 0.1}],
        "train": {"learning_rate": 1e-2},
    },
    "hypo": {
        "objective": [{"name": "dpo"}, {"name": "sampled_kl", "weight": 0.5}],
        "collector": {"name": "mixed", "group_size": 2},
        "rewards": [{"name": "length", "target": 4}],
        "decoding": {"name": "sample", "top_k": 1, "max_steps": 6},
    },
}


def write_config(folder: Path, model: Path, name: str, **sections: Any) -> Path:
    data = folder / "data.jsonl"
    if not data.exists():
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    train = {"steps": 3, "batch_size": 4, "micro_batch_size": 3, "learning_rate": 1e-3, "dtype": "float32"}
    config = {
        "modality": {"name": "text", "model": str(model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(data)}, "eval": {"path": str(data)}},
        "output": str(folder / name),
        **sections,
        "train": train | sections.get("train", {}),
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run_two_processes(config: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "mmalign"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, "train", str(config)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    latest = find_latest(output / "checkpoints")
    assert latest is not None
    return dict(load_checkpoint(latest).tensors["policy"])


def check_two_train_as_one(folder: Path, model: Path, *, atol: float = 1e-6, **sections: Any) -> None:
    mmalign.train(write_config(folder, model, "one", **sections))
    run_two_processes(write_config(folder, model, "two", **sections))
    one, two = final_weights(folder / "one"), final_weights(folder / "two")
    assert one.keys() == two.keys()
    for weight in one:
        torch.testing.assert_close(two[weight], one[weight], rtol=1e-4, atol=atol)
    logs = [read_metrics(folder / run) for run in ("one", "two")]
    assert [row["step"] for row in logs[1]] == [row["step"] for row in logs[0]]
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(losses[0]) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_train_as_one(name: str, tiny_text_model: Path, tmp_path: Path) -> None:
    check_two_train_as_one(tmp_path, tiny_text_model, objective=OBJECTIVES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", COUPLED)
def test_two_processes_couple_their_responses_as_one(name: str, tiny_text_model: Path, tmp_path: Path) -> None:
    check_two_train_as_one(tmp_path, tiny_text_model, **COUPLED[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lipo_lambda", "info_nca"])
def test_two_processes_rank_their_lists_as_one(name: str, tiny_text_model: Path, tmp_path: Path) -> None:
    write_feedback(tmp_path / "data.jsonl", 8)
    check_two_train_as_one(tmp_path, tiny_text_model, objective=[{"name": name}])


@pytest.mark.slow
def test_two_processes_train_masks_as_one(tiny_text_model: Path, tmp_path: Path) -> None:
    masks = [{"name": name, "dropout": 0.0} for name in ("reward_mask", "divergence_mask")]
    sections: dict[str, Any] = {"objective": [{"name": "sparsepo", "reward_sparsity": 0.1}], "quantities": masks}
    mmalign.train(write_config(tmp_path, tiny_text_model, "one", **sections))
    run_two_processes(write_config(tmp_path, tiny_text_model, "two", **sections))
    one, two = final_weights(tmp_path / "one"), final_weights(tmp_path / "two")
    assert any(name.startswith("heads.reward_mask") for name in one)
    for weight in one:
        # Where a gradient is almost zero, AdamW turns its rounding into a step.
        torch.testing.assert_close(two[weight], one[weight], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_a_head_alone(tiny_text_model: Path, tmp_path: Path) -> None:
    """No pass of the policy is planned, so its weights must not be waited for."""
    config = write_config(tmp_path, tiny_text_model, "value", objective={"name": "prompt_value"})
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    records = [mmalign.Record.from_text(row["prompt"], [row["chosen"]], id=row["prompt"]).to_dict() for row in rows]
    for number, record in enumerate(records):
        record["scores"] = [{"item": "r0", "name": "reward", "level": "response", "value": number / 8}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    run_two_processes(config)
    weights = final_weights(tmp_path / "value")
    assert any(name.startswith("heads.prompt_values.") for name in weights)
    assert not any(value.any() for name, value in weights.items() if "lora_B" in name)


@pytest.mark.slow
def test_processes_may_cut_their_shares_into_different_numbers_of_micro_batches(
    tiny_text_model: Path, tmp_path: Path
) -> None:
    """The records of process 1 are the long ones, so a budget of tokens gives it more micro-batches."""
    objective = OBJECTIVES["dpo"]
    mmalign.train(write_config(tmp_path, tiny_text_model, "one", objective=objective))
    config = write_config(tmp_path, tiny_text_model, "two", objective=objective)
    settings = yaml.safe_load(config.read_text())
    settings["train"]["micro_batch_tokens"] = 60
    config.write_text(yaml.safe_dump(settings))
    run_two_processes(config)
    one, two = final_weights(tmp_path / "one"), final_weights(tmp_path / "two")
    for weight in one:
        torch.testing.assert_close(two[weight], one[weight], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_online_run_trains_on_two_processes(tiny_text_model: Path, tmp_path: Path) -> None:
    online = {
        "objective": [{"name": "grpo"}, {"name": "kl_penalty", "weight": 0.1}],
        "collector": {"name": "group", "group_size": 3},
        "rewards": [{"name": "length", "target": 4}],
        "advantage": {"name": "grpo"},
        "decoding": {"name": "sample", "max_steps": 6},
        "evaluation": {"evaluators": [{"name": "generation"}]},
    }
    run_two_processes(write_config(tmp_path, tiny_text_model, "online", **online))
    rows = [row for row in read_metrics(tmp_path / "online") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["grad_norm"] > 0 for row in rows)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tiny_text_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, tiny_text_model, "odd", objective=OBJECTIVES["dpo"])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "mmalign"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launch, "train", str(config), "train.batch_size=3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "train.batch_size: 3 is not a multiple of the 2 processes" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("towers", [False, True])
def test_two_processes_see_as_one(towers: bool, tmp_path: Path) -> None:
    """Also where one has images in its share of a step and the other has none, and in part of its steps only."""
    model = build_tiny_multimodal_model(tmp_path / "model", "llava")
    images = [[1], [], [3], [], [], [], [2, 1], []]
    rows = [
        media_record(tmp_path, "image", seeds, ["A cat.", "No"], text=f"Why {index}?").to_dict()
        for index, seeds in enumerate(images)
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_two_train_as_one(
        tmp_path,
        model,
        modality={"name": "vision_language", "model": str(model), "train_towers": towers},
        objective=[{"name": "dpo"}],
        train={"micro_batch_size": 2},
        atol=1e-5,  # a key's bias changes no attention, and AdamW turns the rounding of its gradient into a step
    )
