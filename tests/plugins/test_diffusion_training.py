"""Runs of the diffusion modalities: offline, with inversion, online, on actions, interrupted and resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from image_records import write_image_pairs

import mmalign
from mmalign import Record, RunConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign_diffusion.testing import build_tiny_class_unet

Build = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_pairs(tmp_path_factory.mktemp("images"), 8)


@pytest.fixture
def build(pairs: Path, tiny_class_unet: Path, tmp_path: Path) -> Build:
    """Makes the configuration of an offline run; keywords replace whole sections, `modality` its keys."""

    def make(modality: dict[str, Any] | None = None, name: str = "run", **sections: Any) -> RunConfig:
        model = {
            "name": "diffusion",
            "family": {"name": "class_unet", "null_class": 3},
            "model": str(tiny_class_unet),
            **(modality or {}),
        }
        config = {
            "modality": model,
            "data": {"train": {"path": str(pairs)}, "eval": {"path": str(pairs)}},
            "objective": {"name": "dpo", "beta": 200.0},
            "train": {"steps": 2, "batch_size": 4, "learning_rate": 1e-3},
            "output": str(tmp_path / name),
        }
        return RunConfig.model_validate({**config, **sections})

    return make


def weights_of(run: Any) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in run.trainable().values()])


def test_a_run_starts_at_its_reference_and_learns_the_preference(build: Build) -> None:
    run = mmalign.train(build(train={"steps": 8, "batch_size": 8, "learning_rate": 1e-3}))
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert run.before["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert run.after["reward_accuracies"] > 0.8 and run.after["loss"] < 0.5


def test_the_micro_batch_size_changes_nothing(build: Build) -> None:
    runs = [
        mmalign.train(build(name=f"run{size}", train={"steps": 2, "batch_size": 4, "micro_batch_size": size}))
        for size in (2, 8)
    ]
    torch.testing.assert_close(weights_of(runs[0]), weights_of(runs[1]), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "noising",
    [
        {"strategy": "forward", "noise": "independent"},
        pytest.param(
            {"strategy": "ddim_inversion", "steps": 3, "eta": 0.1, "variant": "source", "round_trip": 1.0},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"strategy": "renoise", "steps": 3, "iterations": 2, "average": 2, "network": "reference", "round_trip": 1},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_resuming_is_exact(build: Build, noising: dict[str, Any]) -> None:
    train = {"steps": 4, "batch_size": 4, "learning_rate": 1e-3}
    whole = mmalign.train(build({"noising": noising}, "whole", train=train))
    mmalign.train(build({"noising": noising}, "parts", train={**train, "steps": 2}))
    resumed = mmalign.train(build({"noising": noising}, "parts", train=train), resume=True)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    first = next(row for row in read_metrics(whole.output) if row["kind"] == "train")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert ("inversion/round_trip_error" in first) == (noising["strategy"] != "forward")
    assert ("inversion/round_trip_error" in whole.after) == (noising["strategy"] != "forward")


def test_held_out_inversions_follow_the_policy(build: Build) -> None:
    noising = {"strategy": "ddim_inversion", "steps": 3, "round_trip": 1.0}
    run = mmalign.train(build({"noising": noising}))
    assert run.before["inversion/round_trip_error"] != run.after["inversion/round_trip_error"]


def test_a_fixed_table_saves_the_reference_of_later_epochs(build: Build) -> None:
    fixed = build({"timesteps": {"fixed": True}}, train={"epochs": 2, "batch_size": 4}, data={"train": _train(build)})
    run = mmalign.train(fixed)
    cache = run.backend.reference_cache
    assert cache is not None and (cache.computed, cache.found) == (16, 16)
    assert mmalign.train(build(name="free")).backend.reference_cache is None


def _train(build: Build) -> dict[str, Any]:
    return build().data.train.model_dump()


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "flow"])
def test_whatever_a_network_predicts_it_starts_at_its_reference_and_samples(
    build: Build, tmp_path: Path, prediction: str
) -> None:
    model = build_tiny_class_unet(tmp_path / prediction, prediction=prediction)
    decoding = {"name": "diffusion", "max_steps": 3, "guidance": 1.5}
    run = mmalign.train(build({"model": str(model), "weight": "min_snr"}, decoding=decoding))
    assert run.before["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert all(math.isfinite(row["loss"]) for row in read_metrics(run.output))
    ((one,),) = run.backend.generate([Record.from_text("1", id="a")], 1)
    assert one.output.size == (8, 8) and one.behaviour_logps.isfinite().all()
    assert one.rescored and "noisy" in one.encoded.tensors


def test_recomputed_activations_change_nothing(build: Build) -> None:
    train = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3}
    runs = [
        mmalign.train(build(name=f"run{checkpointed}", train={**train, "gradient_checkpointing": checkpointed}))
        for checkpointed in (False, True)
    ]
    torch.testing.assert_close(weights_of(runs[0]), weights_of(runs[1]), atol=1e-6, rtol=1e-4)


def test_an_adapter_trains(build: Build) -> None:
    run = mmalign.train(build({"lora": {"rank": 2}}))
    assert (run.output / "model" / "adapter_model.safetensors").is_file()
    assert 0 < sum(weight.numel() for weight in run.trainable().values()) < 5000


@pytest.mark.parametrize("objective", ["ipo", "simpo", "kto", "sft"])
def test_other_objectives_of_language_models_train_as_they_are(build: Build, objective: str) -> None:
    run = mmalign.train(build(objective={"name": objective}))
    assert all(math.isfinite(row["loss"]) for row in read_metrics(run.output))


def test_objectives_that_need_exact_log_probs_are_refused(build: Build) -> None:
    with pytest.raises(mmalign.PlanError, match="objective 'grpo' needs exact log-probs, but modality 'diffusion'"):
        mmalign.check(build(objective={"name": "grpo"}))


BRIGHTNESS = """
import numpy as np

def brightness(responses):
    return [float(np.asarray(image).mean()) / 255 for image in responses]
"""


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_policy_gradients_on_the_sampler_raise_a_reward(build: Build, tmp_path: Path, shared: bool) -> None:
    (tmp_path / "reward.py").write_text(BRIGHTNESS, encoding="utf-8")
    rewards = [{"name": "python", "function": f"{tmp_path / 'reward.py'}:brightness"}]
    config = build(
        {"name": "diffusion_path", "shared_noise": shared},
        objective={"name": "grpo"},
        collector={"name": "group", "group_size": 8},
        advantage={"name": "grpo"},
        rewards=rewards,
        decoding={"name": "diffusion", "max_steps": 6},
        train={"steps": 24, "batch_size": 4, "learning_rate": 3e-3, "micro_batch_size": 32},
        evaluation={"evaluators": [{"name": "generation", "count": 4}]},
    )
    run = mmalign.train(config)
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert all(row["sampler_gap/max"] < 1e-3 for row in rows), "importance ratios are 1 before each update"
    assert run.after["generation/reward"] > run.before["generation/reward"] + 0.1


@pytest.fixture
def actions(tmp_path: Path) -> Path:
    """Goals in the plane; the preferred four moves lead there, the others do not move."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for index in range(64):
        goal = torch.randn(2, generator=generator)
        good = (goal / 4).expand(4, 2) + 0.02 * torch.randn(4, 2, generator=generator)
        texts = [json.dumps(moves.tolist()) for moves in (good, 0.3 * torch.randn(4, 2, generator=generator))]
        record = Record.from_text(json.dumps(goal.tolist()), texts, id=f"a{index}")
        pair = [{"kind": "pair", "order": [["r0"], ["r1"]]}]
        rows.append(json.dumps({**record.to_dict(), "labels": pair}))
    path = tmp_path / "actions.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


REACH = """
import json, math

def reach(prompts, responses):
    return [
        -math.dist(json.loads(goal), [sum(move[axis] for move in moves) for axis in (0, 1)])
        for goal, moves in zip(prompts, responses)
    ]
"""


@pytest.mark.slow
def test_a_goal_conditioned_policy_of_actions_is_a_denoiser_like_any_other(
    build: Build, actions: Path, tmp_path: Path
) -> None:
    """Sequences of actions, not images: imitation with dropped goals, then sampling with guidance reaches the goals."""
    (tmp_path / "reach.py").write_text(REACH, encoding="utf-8")
    modality = {
        "name": "diffusion",
        "family": {"name": "custom", "target": "linear_denoiser:build_actions"},
        "timesteps": {"draws": 4},
        "drop_condition": 0.1,
    }
    data = {"train": {"path": str(actions)}, "eval": {"path": str(actions), "limit": 8}}
    config = RunConfig.model_validate(
        {
            "modality": modality,
            "data": data,
            "objective": {"name": "sft"},
            "rewards": [{"name": "python", "function": f"{tmp_path / 'reach.py'}:reach"}],
            "decoding": {"name": "diffusion", "max_steps": 10, "guidance": 1.2},
            "train": {"steps": 200, "batch_size": 32, "learning_rate": 3e-3, "micro_batch_size": 64},
            "evaluation": {"evaluators": [{"name": "generation", "count": 8}]},
            "output": str(tmp_path / "run"),
        }
    )
    run = mmalign.train(config)
    assert run.after["generation/reward"] > run.before["generation/reward"] + 1.5
    assert run.after["generation/reward"] > -0.85, "goals are 1 away from where a path begins"
    again = RunConfig.model_validate(
        config.model_dump()
        | {
            "modality": {**modality, "model": str(run.output / "model")},
            "objective": {"name": "dpo", "beta": 1.0},
            "train": {"steps": 20, "batch_size": 32, "learning_rate": 1e-3},
            "output": str(tmp_path / "dpo"),
        }
    )
    preferred = mmalign.train(again)
    assert preferred.after["reward_accuracies"] > 0.8
