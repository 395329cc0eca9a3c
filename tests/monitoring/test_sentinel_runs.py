"""Whole runs that go wrong: each stops with the likely cause, and leaves no model behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign import DataError, MmalignError, PluginError, RunConfig, TrainingError, train

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]


def stop(path: Path, error: type[MmalignError] = TrainingError) -> str:
    with pytest.raises(error) as caught:
        train(path)
    return str(caught.value)


def test_dropout_in_the_network_is_stopped_at_the_first_step(toy_config: Build, write_config: WriteConfig) -> None:
    message = stop(write_config(toy_config(modality={"name": "toy", "dropout": 0.5})))
    assert "before the first update the policy differs from its reference" in message
    assert "dropout in the adapter or the network (set it to 0)" in message


def test_dropout_in_an_online_run_is_stopped(toy_online: Build, write_config: WriteConfig) -> None:
    message = stop(write_config(toy_online(modality={"name": "toy", "dropout": 0.5})))
    assert "fresh rollouts were sampled with log-probs that differ" in message and "dropout" in message


def test_dropout_in_an_adapter_is_stopped_once_the_adapter_is_not_zero(
    tiny_text_model: Path, toy_online: Build, write_config: WriteConfig
) -> None:
    modality = {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 4, "dropout": 0.5}}
    rewards = [{"name": "length", "target": 5, "unit": "characters"}]
    settings = {"steps": 20, "batch_size": 4, "learning_rate": 0.05}
    message = stop(write_config(toy_online(modality=modality, rewards=rewards, train=settings)))
    assert "fresh rollouts were sampled with log-probs that differ" in message and "dropout" in message


def test_a_sampler_that_disagrees_with_scoring_is_stopped(toy_online: Build, write_config: WriteConfig) -> None:
    message = stop(write_config(toy_online(modality={"name": "toy", "broken_sampler": True})))
    assert "differ by 1.00 nats a step from the policy's" in message


@pytest.mark.parametrize(
    ("objective", "error", "expected"),
    [
        ("nan", TrainingError, "the loss is nan although all log-probs are finite; check the data's feedback"),
        ("infinite_gradient", TrainingError, "the gradient norm is nan"),
        ("detached", TrainingError, "the loss of 'detached' has no gradient"),
        ("scalar", PluginError, "objective 'scalar' of toy_plugin.py: its loss has shape (), but one element"),
        ("scalar_metric", PluginError, "objective 'scalar_metric': its metric 'margin' has shape ()"),
    ],
)
def test_a_broken_objective_is_named(
    toy_config: Build, write_config: WriteConfig, objective: str, error: type[MmalignError], expected: str
) -> None:
    assert expected in stop(write_config(toy_config(objective={"name": objective}, data=train_only(toy_config))), error)


def train_only(toy_config: Build) -> dict[str, Any]:
    return {"train": toy_config()["data"]["train"]}


def test_weights_that_explode_are_stopped(toy_config: Build) -> None:
    """A configuration refuses such a learning rate, so it is set behind its back."""
    settings = {"steps": 50, "batch_size": 4, "max_grad_norm": None}
    config = RunConfig.model_validate(toy_config(train=settings))
    exploding = config.model_copy(update={"train": config.train.model_copy(update={"learning_rate": 3e37})})
    with pytest.raises(TrainingError, match="learning rate that is too high"):
        train(exploding)


def test_data_without_what_the_objective_trains_on_is_a_data_error(
    toy_config: Build, write_config: WriteConfig, write_records: Callable[..., Path]
) -> None:
    prompt = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    path = write_records("prompts.jsonl", [{"id": "lonely", "prompt": prompt}])
    message = stop(write_config(toy_config(data={"train": {"path": str(path)}})), DataError)
    assert "objective 'dpo' trains on preference pairs" in message and "'lonely'" in message


def test_a_stopped_run_leaves_no_model_and_no_checkpoint(toy_config: Build, write_config: WriteConfig) -> None:
    config = toy_config(objective={"name": "nan"})
    stop(write_config(config))
    output = Path(config["output"])
    assert (output / "config.yaml").is_file()
    assert not (output / "model").exists()
    assert not list(output.glob("checkpoints/*"))


def test_later_records_without_responses_do_not_stop_a_run(
    toy_config: Build, write_config: WriteConfig, toy_pairs: Path
) -> None:
    prompt = '{"id": "bare", "prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}\n'
    toy_pairs.write_text(toy_pairs.read_text().splitlines(keepends=True)[0] + prompt)
    data = {"train": {"path": str(toy_pairs), "shuffle": False}}
    settings = {"steps": 3, "batch_size": 1, "learning_rate": 0.1}
    run = train(write_config(toy_config(data=data, train=settings)))
    assert run.step == 3
