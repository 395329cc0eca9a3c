"""A run that stops and goes on ends with the weights of one that never stopped, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import mmalign
from mmalign.data.records import Record
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.results.checkpoint import find_latest, load_checkpoint
from mmalign.testing import build_tiny_text_model

STEPS = 12
OFFLINE = {"objective": {"name": "dpo"}}
ONLINE = {
    "objective": [{"name": "grpo"}, {"name": "kl_penalty", "weight": 0.1}],
    "collector": {"name": "group", "group_size": 4},
    "rewards": [{"name": "length", "target": 6}],
    "advantage": {"name": "grpo"},
    "decoding": {"name": "sample", "max_steps": 8},
}
MIXED = {
    "objective": [{"name": "dpo"}, {"name": "sampled_kl", "weight": 0.1}],
    "collector": {"name": "mixed", "group_size": 2},
    "decoding": {"name": "sample", "max_steps": 8},
}
VARIANTS = {
    "dpo": OFFLINE,
    "kto": {"objective": {"name": "kto"}},
    "bco": {"objective": {"name": "bco"}},
    "reward_model": {"objective": {"name": "reward_model"}},
    "trained_quantities": {"objective": {"name": "sparsepo"}, "train": {"head_learning_rate": 0.1}},
    "streamed": {**OFFLINE, "streaming": True},
    "full": {**OFFLINE, "lora": None},
    "adafactor": {**OFFLINE, "lora": None, "train": {"optimiser": "adafactor"}},
    "grpo": ONLINE,
    "hypo": MIXED,
    "learned_composition": {
        **ONLINE,
        "rewards": [
            {"name": "length", "target": 6, "normalise": "running", "clip": [-2, 2], "cache": True},
            {"name": "length", "target": 2, "unit": "steps", "constraint": {"at_least": 0.0, "multiplier_rate": 0.1}},
        ],
    },
    "ema": {**OFFLINE, "reference": {"strategy": "ema", "decay": 0.9}},
    "sync": {**ONLINE, "reference": {"strategy": "sync", "every": 5}},
    "sync_full": {**OFFLINE, "lora": None, "reference": {"strategy": "sync", "every": 3}},
    "momentum": {**OFFLINE, "reference": {"strategy": "momentum", "every": 4, "momentum": 0.3}},
    "past": {**OFFLINE, "reference": {"strategy": "past", "every": 2, "keep": 3}},
    "self_play": {**MIXED, "objective": {"name": "dpo"}, "collector": {"name": "self_play"}},
    # A round of 4 steps; a run may only stop at the end of one.
    "grpo_several_steps": {**ONLINE, "train": {"prompts_per_round": 6, "epochs_per_round": 2}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    build_tiny_text_model(folder / "model")
    rows = [
        {"id": f"p{i}", "prompt": f"Say {i}", "chosen": f"good {i} and kind", "rejected": f"{i} bad"} for i in range(7)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_config(folder: Path, name: str, variant: dict, **changes) -> Path:
    lora = variant.get("lora", {"rank": 4, "dropout": 0.0})
    config = {
        "modality": {"name": "text", "model": str(folder / "model"), "lora": lora},
        "data": {"train": {"path": str(folder / "data.jsonl"), "streaming": variant.get("streaming", False)}},
        "train": {"steps": STEPS, "batch_size": 3, "micro_batch_size": 4, "learning_rate": 1e-2},
        "checkpoint": {"every": 1},
        "output": str(folder / name),
    }
    config |= {key: value for key, value in variant.items() if key not in ("lora", "streaming", "train")}
    config["train"] |= variant.get("train", {}) | changes
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def final_tensors(output: Path) -> dict[str, torch.Tensor]:
    latest = find_latest(output / "checkpoints")
    assert latest is not None
    checkpoint = load_checkpoint(latest)
    assert checkpoint.step == STEPS
    return {f"{group}/{name}": value for group, own in checkpoint.tensors.items() for name, value in own.items()}


def assert_identical(first: Path, second: Path) -> None:
    one, two = final_tensors(first), final_tensors(second)
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert not different


@pytest.mark.parametrize("name", VARIANTS)
def test_half_and_half_equals_one_go(folder: Path, name: str) -> None:
    whole = write_config(folder, f"{name}-whole", VARIANTS[name])
    halves = write_config(folder, f"{name}-halves", VARIANTS[name])
    run = mmalign.train(whole)
    start = {key: value.clone() for key, value in mmalign.train(halves, {"train.steps": 8}).trainable().items()}
    mmalign.train(halves, resume=True)
    assert_identical(folder / f"{name}-whole", folder / f"{name}-halves")
    # The second half must have trained, or equal weights would mean little.
    assert any(not torch.equal(start[key], value) for key, value in run.trainable().items())


def going_on(output: Path) -> dict[str, bool]:
    """A kill between the first line of the log and the first checkpoint leaves nothing to go on from."""
    nothing = (output / "metrics.jsonl").exists() and find_latest(output / "checkpoints") is None
    return {"overwrite": True} if nothing else {"resume": True}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "grpo"])
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_equals_one_go(folder: Path, name: str, seed: int) -> None:
    """Processes are forked from one that has imported everything, since importing takes longer than the run."""
    whole = write_config(folder, f"{name}-{seed}-calm", VARIANTS[name])
    moments = [row["time"] for row in read_metrics(mmalign.train(whole).output) if row["kind"] == "train"]
    step = (moments[-1] - moments[0]) / (STEPS - 1)
    output = folder / f"{name}-{seed}-killed"
    config = write_config(folder, output.name, VARIANTS[name])
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["mmalign.api", "mmalign_text.modality", "transformers", "peft"])
    chance, kills = random.Random(seed), 0
    for _ in range(60):
        process = server.Process(target=mmalign.train, args=(config,), kwargs=going_on(output))
        log = output / "metrics.jsonl"
        known = log.stat().st_size if log.exists() else 0
        process.start()
        while process.is_alive() and (not log.exists() or log.stat().st_size == known):
            time.sleep(0.01)
        # A fraction of a step to two steps later: while computing, saving or logging.
        process.join(timeout=chance.uniform(0.0, 2 * step))
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert kills > 2
    assert_identical(folder / f"{name}-{seed}-calm", output)
    steps = [row["step"] for row in read_metrics(output) if row["kind"] == "train"]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_kept_log_probs_change_no_resumed_run(folder: Path, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halves = (write_config(folder, f"cache-{shared}-{name}", OFFLINE) for name in ("whole", "halves"))
    monkeypatch.setenv("MMALIGN_CACHE", str(folder / f"cache-{shared}"))
    mmalign.train(whole)
    if not shared:
        monkeypatch.setenv("MMALIGN_CACHE", str(folder / "cache-other"))
    mmalign.train(halves, {"train.steps": 5})
    mmalign.train(halves, resume=True)
    assert_identical(folder / f"cache-{shared}-whole", folder / f"cache-{shared}-halves")


def test_going_on_with_another_cache_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_config(folder, "cache-moved", OFFLINE)
    mmalign.train(config, {"train.steps": 2})
    mmalign.train(config, {"train.steps": 4}, resume=True)
    assert "reference log-probs" not in caplog.text
    monkeypatch.setenv("MMALIGN_CACHE", str(folder / "cache-new"))
    mmalign.train(config, {"train.steps": 6}, resume=True)
    assert "the cache of reference log-probs is not the one" in caplog.text


@pytest.mark.parametrize("reference", [{}, {"strategy": "sync", "every": 2}], ids=["fixed", "other period"])
def test_another_reference_is_refused(folder: Path, reference: dict) -> None:
    name = f"reference-{len(reference)}"
    config = write_config(folder, name, {**OFFLINE, "reference": {"strategy": "sync", "every": 3}}, steps=2)
    mmalign.train(config)
    with pytest.raises(mmalign.CheckpointError, match=r"  reference\.every: 3, now (2|nothing)"):
        mmalign.train(config, {"reference": {"strategy": "auto", "every": None, **reference}}, resume=True)


def test_another_objective_is_refused(folder: Path) -> None:
    config = write_config(folder, "refused", VARIANTS["dpo"], steps=2)
    mmalign.train(config)
    with pytest.raises(mmalign.CheckpointError, match=r'objective: {"name": "dpo", .*now {"name": "ipo"'):
        mmalign.train(config, {"objective": {"name": "ipo"}}, resume=True)


def test_another_optimiser_is_refused(folder: Path) -> None:
    config = write_config(folder, "refused_optimiser", VARIANTS["dpo"], steps=2)
    mmalign.train(config)
    with pytest.raises(mmalign.CheckpointError, match=r'train\.optimiser: "adamw", now "adafactor"'):
        mmalign.train(config, {"train.optimiser": "adafactor"}, resume=True)


def test_a_checkpoint_from_before_a_key_had_its_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(folder, "older", VARIANTS["dpo"], steps=2)
    dump = mmalign.RunConfig.model_dump

    def dump_older(self: mmalign.RunConfig, **options: Any) -> dict[str, Any]:
        fields = dump(self, **options)
        del fields["train"]["optimiser"]
        return fields

    with monkeypatch.context() as older:
        older.setattr(mmalign.RunConfig, "model_dump", dump_older)
        mmalign.train(config)
    assert mmalign.train(config, {"train.steps": 3}, resume=True).step == 3


def test_changed_data_are_refused(folder: Path) -> None:
    config = write_config(folder, "changed", VARIANTS["dpo"], steps=2)
    other = folder / "other.jsonl"
    other.write_text(Record.from_text("q", ["a"], id="x").to_json() + "\n")
    mmalign.train(config)
    with pytest.raises(mmalign.CheckpointError, match="data have changed"):
        mmalign.train(config, {"data.train.path": str(other)}, resume=True)
