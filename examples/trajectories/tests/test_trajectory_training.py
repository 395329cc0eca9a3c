"""Runs by configuration alone: a few seeded steps bring unseen goals nearer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mmalign

ROOT = Path(__file__).resolve().parents[1]


def make_overrides(output: Path, *, train: str, held_out: str, **more: Any) -> dict[str, Any]:
    return {
        "data.train.path": str(ROOT / "data" / train),
        "data.eval.path": str(ROOT / "data" / held_out),
        "output": str(output),
        **more,
    }


@pytest.mark.parametrize("name", ["dpo", "exponential_po"])
def test_twenty_steps_on_pairs_raise_the_reward(name: str, tmp_path: Path) -> None:
    overrides = make_overrides(tmp_path / "run", train="pairs.jsonl", held_out="heldout_pairs.jsonl")
    run = mmalign.train(ROOT / "configs" / f"{name}.yaml", {**overrides, "train.steps": 20})
    assert run.before["reward_accuracies"] == 0.5
    assert run.after["reward_accuracies"] > 0.7
    assert run.after["generation/reward_low"] > run.before["generation/reward_high"]


def test_ten_rounds_of_sampling_raise_the_reward(tmp_path: Path) -> None:
    overrides = make_overrides(tmp_path / "run", train="prompts.jsonl", held_out="heldout.jsonl")
    run = mmalign.train(ROOT / "configs" / "grpo.yaml", {**overrides, "train.steps": 10})
    assert run.after["generation/reward"] > run.before["generation/reward"] + 1
    assert run.after["generation/kl"] > 0


def test_a_run_starts_from_the_weights_of_another(tmp_path: Path) -> None:
    online = make_overrides(tmp_path / "grpo", train="prompts.jsonl", held_out="heldout.jsonl")
    first = mmalign.train(ROOT / "configs" / "grpo.yaml", {**online, "train.steps": 10})
    weights = str(tmp_path / "grpo" / "model" / "model.safetensors")
    overrides = make_overrides(tmp_path / "more", train="prompts.jsonl", held_out="heldout.jsonl")
    second = mmalign.train(ROOT / "configs" / "grpo.yaml", {**overrides, "train.steps": 1, "modality.weights": weights})
    assert second.before["generation/reward"] == pytest.approx(first.after["generation/reward"])


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_a_prompt_without_a_goal_is_found_before_training(name: str, tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text('{"id": "a", "prompt": "{\\"start\\": [0, 0]}", "chosen": "[[1, 1]]", "rejected": "[[2, 2]]"}\n')
    overrides = make_overrides(tmp_path / "run", train="pairs.jsonl", held_out="heldout_pairs.jsonl")
    with pytest.raises(mmalign.DataError, match=r"bad\.jsonl:1: record 'a': prompt: goal: Field required"):
        mmalign.check(ROOT / "configs" / f"{name}.yaml", {**overrides, "data.train.path": str(data)})
    assert not (tmp_path / "run").exists()
