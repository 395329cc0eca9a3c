"""Whatever part of a plugin raises in a run: one error that names the part, the plugin, the file and the line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign import MmalignError, PluginError, RunConfig, train
from mmalign.cli.main import main

PLUGIN = """
import os

import toy_plugin
from mmalign import AdvantageSpec, ModalitySpec, ObjectiveSpec, QuantitySpec, Reward, RewardSpec, Transform
from mmalign import TransformSpec, hookimpl

WHERE = os.environ["BREAKS"]

def may_break(here):
    if WHERE == here:
        raise KeyError("nothing of that name")

@hookimpl
def register_modalities():
    return [ModalitySpec(name="b_modality", summary="B.", target="breaking:Digits", config="toy_plugin:ToyConfig")]

@hookimpl
def register_objectives():
    return [ObjectiveSpec(name="b_loss", summary="B.", loss="breaking:b_loss", per="response")]


@hookimpl
def register_quantities():
    return [QuantitySpec(name="twice", summary="B.", axes="N", compute="breaking:twice", stage="frozen")]


@hookimpl
def register_advantages():
    return [AdvantageSpec(name="b_advantage", summary="B.", function="breaking:b_advantages")]


@hookimpl
def register_rewards():
    return [RewardSpec(name="b_reward", summary="B.", target="breaking:BReward")]

@hookimpl
def register_transforms():
    return [TransformSpec(name="b_transform", summary="B.", target="breaking:BTransform")]

@hookimpl
def on_step_ended(run, metrics):
    may_break("on_step_ended")

class Digits(toy_plugin.Toy):
    def load(self, **keys):
        may_break("load")
        return super().load(**keys)

    def encode(self, record):
        may_break("encode")
        return super().encode(record)

    def step_log_probs(self, network, responses):
        may_break("step_log_probs")
        return super().step_log_probs(network, responses)

    def generate(self, *arguments):
        may_break("generate")
        return super().generate(*arguments)

def b_loss(policy_sequence_logps, twice):
    may_break("b_loss")
    return -policy_sequence_logps * twice, {}

def twice(lengths):
    may_break("twice")
    return 2.0 * lengths

def b_advantages(composite_rewards):
    may_break("b_advantages")
    return composite_rewards

class BReward(Reward):
    def score(self, samples):
        may_break("score")
        return [1.0 for _ in samples]

class BTransform(Transform):
    def apply(self, records):
        for record in records:
            may_break("apply")
            yield record
"""

OFFLINE = {"load": "Digits.load", "encode": "Digits.encode", "step_log_probs": "modality Digits"}
OFFLINE |= {"b_loss": "objective 'b_loss'", "twice": "quantity 'twice'", "apply": "transform 'BTransform'"}
OFFLINE |= {"on_step_ended": "on_step_ended"}
ONLINE = {"generate": "Digits.generate", "b_advantages": "advantage 'b_advantage'"}
LINE = r"KeyError: 'nothing of that name' \(\S*/breaking\.py, line 12, in may_break\)"

Config = Callable[..., dict[str, Any]]


@pytest.fixture
def breaking(toy_config: Config, toy_online: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    (tmp_path / "breaking.py").write_text(PLUGIN)

    def build(where: str) -> dict[str, Any]:
        monkeypatch.setenv("BREAKS", where)
        if where in OFFLINE:
            config = toy_config(objective={"name": "b_loss"})
        else:
            config = toy_online(rewards=[{"name": "b_reward"}], advantage={"name": "b_advantage"})
        config["modality"] = {"name": "b_modality"}
        config["data"]["train"]["transforms"] = [{"name": "b_transform"}]
        del config["data"]["eval"]
        config["plugins"] = [*config["plugins"], str(tmp_path / "breaking.py")]
        return config

    return build


@pytest.mark.parametrize("where", [*OFFLINE, *ONLINE])
def test_the_part_and_the_line_are_named(where: str, breaking: Config) -> None:
    part = re.escape((OFFLINE | ONLINE)[where])
    with pytest.raises(PluginError, match=rf"^{part} of breaking\.py failed: {LINE}$") as caught:
        train(RunConfig.model_validate(breaking(where)))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_reward_that_always_fails_names_its_line(breaking: Config) -> None:
    with pytest.raises(MmalignError, match=rf"rewards\.b_reward: failed on all .*{LINE}"):
        train(RunConfig.model_validate(breaking("score")))


@pytest.mark.parametrize("options", [[], ["--debug"]])
def test_the_command_line_shows_frames_where_they_are_asked_for(
    options: list[str],
    breaking: Config,
    write_config: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["mmalign", *options, "train", str(write_config(breaking("b_loss")))])
    with pytest.raises(SystemExit) as caught:
        main()
    errors = capsys.readouterr().err
    assert caught.value.code == 2 and "error: objective 'b_loss' of breaking.py failed" in errors
    assert ("Traceback" in errors) == bool(options) == ("in may_break\n" in errors)


def test_a_bug_of_ours_keeps_its_traceback(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in which no plugin has a part."""
    monkeypatch.setattr("mmalign.training.loop.learning_rate", len)
    with pytest.raises(TypeError) as caught:
        train(offline)
    assert "optimiser_step" in "".join(traceback.format_tb(caught.value.__traceback__))
