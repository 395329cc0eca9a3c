"""Rewards are asked for one score by `check`; what costs something is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign import MmalignError

PLUGIN = """
import torch
from mmalign import Reward, RewardSpec, hookimpl

class Mine(Reward):
    def score(self, samples):
        return [float(len(one.output)) for one in samples]

@hookimpl
def register_rewards():
    return [RewardSpec(name="mine", summary=".", target="mine:Mine")]
"""
SCORE = "return [float(len(one.output)) for one in samples]"
MISTAKES = {
    "raises": (
        "return [one.length for one in samples]",
        r"reward 'mine' of mine.py failed .*AttributeError: .*line 7, in",
    ),
    "a complex number": ("return [1j for one in samples]", "expected a finite number, or NaN"),
    "one number": ("return 1.0", "expected a list of 1 numbers, got float"),
    "too many numbers": ("return [1.0, 2.0]", "expected 1 scores, one a sample, got 2"),
}


@pytest.fixture
def check(tmp_path: Path, toy_online: Callable[..., dict[str, Any]], write_config: Callable[..., Path]) -> Any:
    """Checks a run with the reward of the given source."""

    def run(source: str) -> Any:
        file = tmp_path / "mine.py"
        file.write_text(source)
        config = toy_online(rewards=[{"name": "mine"}])
        config["plugins"].append(str(file))
        return mmalign.check(write_config(config))

    return run


def test_the_reward_is_right_as_it_stands(check: Any) -> None:
    check(PLUGIN)


@pytest.mark.parametrize(
    "source", ["return [torch.tensor(1.0) for one in samples]", f"torch.set_grad_enabled(False)\n        {SCORE}"]
)
def test_what_a_run_reads_or_switches_back_is_right(check: Any, source: str) -> None:
    check(PLUGIN.replace(SCORE, source))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(check: Any, mistake: str) -> None:
    wrong, message = MISTAKES[mistake]
    with pytest.raises(MmalignError, match=message) as caught:
        check(PLUGIN.replace(SCORE, wrong))
    assert len(str(caught.value).splitlines()) == 1


def test_a_costly_reward_is_not_called(check: Any) -> None:
    check(PLUGIN.replace(SCORE, "raise RuntimeError('asked')").replace("def score", "costly = True\n\n    def score"))
