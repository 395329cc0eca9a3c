"""What is said of steps that change nothing or too much: by the rules one by one, and in whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transforming import compared

from mmalign import ConfigError, Record, check, train
from mmalign.contract.batch import Batch, build_batch
from mmalign.contract.values import EncodedResponse
from mmalign.monitoring.learning import PATIENCE, LearningWatch

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]


def make_batch(*sides: tuple[str, str], prompt: str = "x") -> Batch:
    records, encoded = [], []
    for number, texts in enumerate(sides):
        record = Record.from_text(f"{prompt}{number if prompt else ''}", texts, id=f"p{number}")
        records.append(compared(record, ("r0", "r1")))
        encoded.append([EncodedResponse({"ids": torch.tensor(list(text.encode()))}, len(text), 1) for text in texts])
    return build_batch(records, encoded, targets_only=False)


@pytest.mark.parametrize(("sides", "said"), [([("a", "a"), ("b", "b")], True), ([("a", "a"), ("a", "b")], False)])
def test_pairs_of_equal_responses(sides: Any, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    LearningWatch().see_batch(make_batch(*sides), {}, whole=True)
    assert ("2 preference pairs of a batch have equal responses, e.g. of record 'p0'" in caplog.text) == said


@pytest.mark.parametrize(("prompt", "whole", "said"), [("", True, True), ("", False, False), ("x", True, False)])
def test_records_of_one_prompt(prompt: str, whole: bool, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    LearningWatch().see_batch(make_batch(("a", "b"), ("c", "d"), prompt=prompt), {"point": 2}, whole=whole)
    assert ("2 records of a batch have one prompt, but 'point' compares prompts" in caplog.text) == said


@pytest.mark.parametrize(
    ("start", "later", "said"), [(-2.0, -20.0, False), (-2.0, -23.0, True), (-900.0, -950.0, False)]
)
def test_log_probs_that_fall(start: float, later: float, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    watch, mask = LearningWatch(), torch.tensor([[True, False]])
    for step, value in enumerate((start, later, later)):
        watch.see_logps({"policy_logps": torch.tensor([[value, float("nan")]]), "step_mask": mask}, step, 5.0)
    assert caplog.text.count("lower train.learning_rate, now 5") == said


def test_a_gradient_of_zero_is_said_once_it_has_lasted(caplog: pytest.LogCaptureFixture) -> None:
    watch = LearningWatch()
    watch.see_step({"grad_norm": 1.0}, ())
    for _ in range(PATIENCE - 1):
        watch.see_step({"grad_norm": 0.0}, ())
    watch.finish()
    assert not caplog.text
    for _ in range(PATIENCE):
        watch.see_step({"grad_norm": 0.0}, ())
    assert caplog.text.count(f"the gradient was exactly 0 in the last {PATIENCE} steps") == 1


def test_a_short_run_without_a_gradient_is_said_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    watch = LearningWatch()
    watch.see_step({"grad_norm": 0.0}, ())
    watch.finish()
    assert "the gradient was exactly 0 in the last 1 steps: nothing was learned" in caplog.text


# -- runs


FUNCTIONS = """
from math import nan
def same(responses): return [1.0] * len(responses)
def none(responses): return [nan] * len(responses)
"""


@pytest.mark.parametrize(
    ("function", "said"),
    [("same", "every prompt of a round got the same reward"), ("none", "no response of a round has a reward")],
)
def test_rewards_that_teach_nothing(
    toy_online: Build,
    write_config: WriteConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    function: str,
    said: str,
) -> None:
    (tmp_path / "scoring.py").write_text(FUNCTIONS)
    rewards = [{"name": "python", "function": f"{tmp_path}/scoring.py:{function}", "label": "mine"}]
    train(write_config(toy_online(rewards=rewards, train={"steps": 2, "batch_size": 2, "learning_rate": 0.1})))
    assert said in caplog.text and "nothing was learned" in caplog.text
    assert function == "same" or "see the rewards: mine" in caplog.text


def test_a_group_of_one_is_refused_by_check(toy_online: Build, write_config: WriteConfig) -> None:
    path = write_config(toy_online(collector={"name": "group", "group_size": 1}))
    with pytest.raises(ConfigError, match=r"collector\.group_size: 'group' samples 1 response.*'grpo'.*at least 2"):
        check(path)


def test_one_prompt_a_batch_is_refused_where_prompts_are_compared(toy_config: Build, write_config: WriteConfig) -> None:
    path = write_config(toy_config(objective={"name": "kto"}, train={"steps": 1, "batch_size": 1}))
    with pytest.raises(ConfigError, match=r"train\.batch_size: got 1, but 'kl_reference_point' compares .* at least 2"):
        check(path)


def test_held_out_records_without_pairs_are_not_measured(
    toy_config: Build, write_config: WriteConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = toy_config(objective=[{"name": "dpo"}, {"name": "sft", "weight": 0.1}])
    held = tmp_path / "held.jsonl"
    held.write_text(Record.from_text("0", ["11"], id="held").to_json() + "\n")
    config["data"]["eval"] = {"path": str(held)}
    run = train(write_config(config))
    assert "loss" not in run.after and not [name for name in run.after if name.startswith("dpo/")]
    assert run.after["sft/loss"] > 0
    assert caplog.text.count("objective 'dpo' is not measured: it is about preference pairs") == 1
