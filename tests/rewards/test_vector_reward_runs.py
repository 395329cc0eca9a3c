"""Rewards of several numbers a response in configurations and whole runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmalign
from mmalign import ConfigError, Record
from mmalign.config.run_config import RunConfig, load_config
from mmalign.config.validation import validate
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.planning.assembly import assemble, load_registry_for
from mmalign.results.checkpoint import find_latest, load_checkpoint
from mmalign.training.feedback import sample_records

Build = Callable[..., dict[str, Any]]

FUNCTION = """
def rate(responses):
    return [(response.count("0"), len(set(response)) / 10) for response in responses]
"""


# -- wrong configurations


@pytest.fixture
def rating(tmp_path: Path) -> dict[str, Any]:
    """A Python function of two outputs."""
    (tmp_path / "rating.py").write_text(FUNCTION, encoding="utf-8")
    return {"name": "python", "function": f"{tmp_path}/rating.py:rate", "outputs": ["zeros", "kinds"]}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dimensions": {"zeross": {}}}, r"rewards\.dimensions: unknown dimension 'zeross'; did you mean 'zeros'\?"),
        ({"dimensions": {"zeros": {"wieght": 1}}}, r"dimensions\.zeros\.wieght: unknown key .* did you mean 'weight'"),
        ({"dimensions": {"zeros": {"weight": True}}}, r"dimensions\.zeros\.weight: expected a number, got true"),
        ({"dimensions": {"zeros": {"clip": [2, 1]}}}, r"dimensions\.zeros\.clip: expected \[low, high\]"),
        ({"dimensions": {"zeros": 1}}, r"dimensions\.zeros: expected a mapping"),
        ({"outputs": ["a", "a"]}, r"rewards: the dimensions need names of their own, got 'a', 'a'"),
        (
            {"outputs": [], "dimensions": {"zeros": {}}},
            r"rewards\.dimensions: reward 'python' gives one number here, without dimensions",
        ),
        (
            {"dimensions": {"zeros": {"weight": 2, "constraint": {"at_least": 0}}}},
            r"dimensions\.zeros.*weight: a constraint has a multiplier in its place",
        ),
    ],
)
def test_wrong_dimensions_are_refused(
    keys: dict[str, Any], message: str, rating: dict[str, Any], toy_online: Build
) -> None:
    config = toy_online(rewards=[rating | keys])
    with pytest.raises(ConfigError, match=message):
        assemble(validate(RunConfig, config, ""), load_registry_for(config))


def test_a_product_refuses_weights_of_dimensions(rating: dict[str, Any], toy_online: Build) -> None:
    config = toy_online(rewards=[rating | {"dimensions": {"zeros": {"weight": 0.5}}}], composition={"name": "product"})
    with pytest.raises(ConfigError, match=r"rewards\[0\]\.dimensions\.zeros\.weight: 'product' has no use for weights"):
        validate(RunConfig, config, "")


# -- runs


def test_a_run_logs_notes_and_resumes_every_dimension(
    rating: dict[str, Any], toy_online: Build, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    dimensions = {"zeros": {"normalise": "running"}, "kinds": {"constraint": {"at_most": 0.2}}}
    evaluation = {"evaluators": [{"name": "generation"}]}
    config = toy_online(rewards=[rating | {"dimensions": dimensions}], evaluation=evaluation)
    run = mmalign.train(write_config(config))
    assert run.backend.reward_names == ("python/zeros", "python/kinds")
    rows = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert {"reward/python/zeros", "reward/python/kinds", "multiplier/python/kinds"} <= rows[-1].keys()
    assert {"generation/reward/python/zeros", "generation/reward/python/kinds"} <= run.after.keys()
    assert "reward/python/zeros" in (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["rewards"] == ["python/zeros", "python/kinds"]
    (record,) = sample_records(run, [Record.from_text("xx", [])], count=2)
    assert [score.name for score in record.scores] == ["reward"] * 2 + ["python/zeros"] * 2 + ["python/kinds"] * 2
    saved = load_config(tmp_path / "run" / "config.yaml")
    assert saved.rewards == run.config.rewards

    halves = write_config(config | {"output": str(tmp_path / "halves")}, "halves.yaml")
    mmalign.train(halves, {"train.steps": 2})
    mmalign.train(halves, resume=True)
    (one, two) = (load_checkpoint(find_latest(tmp_path / name / "checkpoints")) for name in ("run", "halves"))
    assert torch.equal(one.tensors["policy"]["network.table"], two.tensors["policy"]["network.table"])
    assert one.state["rewards"] == two.state["rewards"]


def test_an_advantage_reads_all_dimensions(
    rating: dict[str, Any], toy_online: Build, write_config: Callable[..., Path], tmp_path: Path
) -> None:
    plugin = tmp_path / "columns_plugin.py"
    plugin.write_text(
        "import mmalign\n"
        "seen = []\n"
        "@mmalign.hookimpl\ndef register_advantages():\n"
        "    spec = mmalign.AdvantageSpec(name='columns', summary='.', function='columns_plugin:centre')\n"
        "    return [spec]\n"
        "def centre(rewards, prompt_index):\n"
        "    seen.append(tuple(rewards.shape))\n"
        "    return (rewards - rewards.mean(dim=0)).sum(dim=1)\n",
        encoding="utf-8",
    )
    config = toy_online(rewards=[rating], advantage={"name": "columns"})
    config["plugins"] = [*config["plugins"], str(plugin)]
    assert mmalign.train(write_config(config)).step == 4
    import columns_plugin  # the run has loaded it

    assert columns_plugin.seen == [(16, 2)] * 4
