"""Two processes make the same updates as one: the global batch is shared, and normalised as a whole.

All runs on two processes are made by one pair of processes, one after the other (`train_one_by_one.py`): starting a pair
takes longer than to train. One run is made by the command as users start it.
"""

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
from filelock import FileLock
from multimodal_models import build_tiny_multimodal_model
from multimodal_records import media_record

import mmalign
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.results.checkpoint import find_latest, load_checkpoint
from mmalign.testing import build_tiny_text_model

TRAIN = Path(__file__).parents[1] / "train_one_by_one.py"

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


# Configurations of two runs that have to end alike, by name, beside the objectives above.
LISTS: dict[str, dict[str, Any]] = {name: {"objective": [{"name": name}]} for name in ("lipo_lambda", "info_nca")}
MASKS: dict[str, Any] = {
    "objective": [{"name": "sparsepo", "reward_sparsity": 0.1}],
    "quantities": [{"name": name, "dropout": 0.0} for name in ("reward_mask", "divergence_mask")],
}
ONLINE: dict[str, Any] = {
    "objective": [{"name": "grpo"}, {"name": "kl_penalty", "weight": 0.1}],
    "collector": {"name": "group", "group_size": 3},
    "rewards": [{"name": "length", "target": 4}],
    "advantage": {"name": "grpo"},
    "decoding": {"name": "sample", "max_steps": 6},
    "evaluation": {"evaluators": [{"name": "generation"}]},
}
TOWERS = {"towers_frozen": False, "towers_trained": True}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"objective": objective} for name, objective in OBJECTIVES.items()},
    **COUPLED,
    **LISTS,
    "masks": MASKS,
    "head": {"objective": {"name": "prompt_value"}},
    # The records of process 1 are the long ones, so a budget of tokens gives it more micro-batches.
    "budget": {"objective": OBJECTIVES["dpo"], "train": {"micro_batch_tokens": 60}},
    "online": ONLINE,
    **{name: {"objective": OBJECTIVES["dpo"], "train": {"micro_batch_size": 2}} for name in TOWERS},
}


def write_config(folder: Path, name: str, **sections: Any) -> Path:
    """Writes a configuration on the model and the data that the folder, or the one above, holds."""
    data, model = folder / "data.jsonl", folder.parent / "model"
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


def write_data(folder: Path, case: str) -> None:
    """Writes what a case trains on."""
    file = folder / "data.jsonl"
    if case in LISTS:
        write_feedback(file, 8)
        return
    rows: list[Any] = ROWS
    if case == "head":
        rows = [mmalign.Record.from_text(row["prompt"], [row["chosen"]], id=row["prompt"]).to_dict() for row in ROWS]
        for number, record in enumerate(rows):
            record["scores"] = [{"item": "r0", "name": "reward", "level": "response", "value": number / 8}]
    elif case in TOWERS:
        # Also where one process has images in its share of a step and the other has none, and in part of its steps.
        images = [[1], [], [3], [], [], [], [2, 1], []]
        rows = [
            media_record(folder, "image", seeds, ["A cat.", "No"], text=f"Why {index}?").to_dict()
            for index, seeds in enumerate(images)
        ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sections_of(root: Path, case: str) -> dict[str, Any]:
    seeing = {"name": "vision_language", "model": str(root / "seeing"), "train_towers": TOWERS.get(case)}
    return CASES[case] | ({"modality": seeing} if case in TOWERS else {})


def launch(*program: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *program]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.fixture(scope="session")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with the runs `CASE/two` of all cases; workers of pytest-xdist share it."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "two_processes"
    with FileLock(f"{root}.lock"):
        if not root.exists():
            _train_all(root)
    return root


def _train_all(root: Path) -> None:
    build_tiny_text_model(root / "model")
    build_tiny_multimodal_model(root / "seeing", "llava")
    for case in CASES:
        (root / case).mkdir()
        write_data(root / case, case)
    configs = [write_config(root / case, "two", **sections_of(root, case)) for case in CASES]
    done = launch(TRAIN, *configs)
    assert done.returncode == 0, done.stderr[-3000:]


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    latest = find_latest(output / "checkpoints")
    assert latest is not None
    return dict(load_checkpoint(latest).tensors["policy"])


def train_by_one(root: Path, case: str, tmp_path: Path) -> Path:
    """Makes the run of a case on this process; returns its folder."""
    config = write_config(root / case, "one", **sections_of(root, case), output=str(tmp_path / "one"))
    return mmalign.train(config).output


def check_alike(one: Path, two: Path, *, atol: float = 1e-6) -> None:
    weights = final_weights(one), final_weights(two)
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=atol)
    logs = [read_metrics(run) for run in (one, two)]
    assert [row["step"] for row in logs[1]] == [row["step"] for row in logs[0]]
    losses = [[row["loss"] for row in rows if "loss" in row] for rows in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert len(losses[0]) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("case", [*OBJECTIVES, *COUPLED, *LISTS, "budget"])
def test_two_processes_train_as_one(case: str, trained_by_two: Path, tmp_path: Path) -> None:
    check_alike(train_by_one(trained_by_two, case, tmp_path), trained_by_two / case / "two")


@pytest.mark.slow
def test_the_command_trains_on_two_processes_as_on_one(trained_by_two: Path, tmp_path: Path) -> None:
    config = write_config(trained_by_two / "dpo", "command", **CASES["dpo"], output=str(tmp_path / "run"))
    done = launch("-m", "mmalign", "train", config)
    assert done.returncode == 0, done.stderr[-2000:]
    check_alike(train_by_one(trained_by_two, "dpo", tmp_path), tmp_path / "run")


@pytest.mark.slow
def test_two_processes_train_masks_as_one(trained_by_two: Path, tmp_path: Path) -> None:
    one = train_by_one(trained_by_two, "masks", tmp_path)
    assert any(name.startswith("heads.reward_mask") for name in final_weights(one))
    # Where a gradient is almost zero, AdamW turns its rounding into a step.
    check_alike(one, trained_by_two / "masks" / "two", atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_a_head_alone(trained_by_two: Path) -> None:
    """No pass of the policy is planned, so its weights must not be waited for."""
    weights = final_weights(trained_by_two / "head" / "two")
    assert any(name.startswith("heads.prompt_values.") for name in weights)
    assert not any(value.any() for name, value in weights.items() if "lora_B" in name)


@pytest.mark.slow
def test_an_online_run_trains_on_two_processes(trained_by_two: Path) -> None:
    rows = [row for row in read_metrics(trained_by_two / "online" / "two") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["grad_norm"] > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("case", TOWERS)
def test_two_processes_see_as_one(case: str, trained_by_two: Path, tmp_path: Path) -> None:
    # A key's bias changes no attention, and AdamW turns the rounding of its gradient into a step.
    check_alike(train_by_one(trained_by_two, case, tmp_path), trained_by_two / case / "two", atol=1e-5)


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tiny_text_model: Path, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    write_data(tmp_path / "odd", "dpo")
    modality = {"name": "text", "model": str(tiny_text_model)}
    config = write_config(tmp_path / "odd", "odd", objective=OBJECTIVES["dpo"], modality=modality)
    done = launch("-m", "mmalign", "train", config, "train.batch_size=3")
    assert done.returncode != 0
    assert "train.batch_size: 3 is not a multiple of the 2 processes" in done.stderr
