"""The Python interface: what a run does and writes, and how it is loaded again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from mmalign import (
    CheckpointError,
    ConfigError,
    RunConfig,
    check,
    evaluate,
    load_config,
    load_run,
    train,
)
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.run import Run

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]
SavedSteps = Callable[[Path], list[int]]
Tables = Callable[[Run], list[float]]


# -- training


def test_offline_training_improves_what_it_trains_on(toy_config: Build, write_config: WriteConfig) -> None:
    run = train(write_config(toy_config(train={"steps": 40, "batch_size": 5, "learning_rate": 0.05})))
    assert run.finished and run.step == 40
    assert run.before["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert run.before["reward_margins"] == 0.0
    assert run.after["loss"] < 0.5 and run.after["reward_accuracies"] == 1.0


def test_online_training_raises_the_reward(toy_online: Build, write_config: WriteConfig) -> None:
    settings = {"steps": 30, "batch_size": 5, "learning_rate": 0.1}
    evaluation = {"evaluators": [{"name": "generation", "count": 8}]}
    run = train(write_config(toy_online(train=settings, evaluation=evaluation)))
    assert run.after["generation/reward"] > run.before["generation/reward"] + 0.3
    assert run.before["generation/kl"] == pytest.approx(0.0, abs=1e-5)
    assert run.after["generation/kl"] > 0.1
    rows = [row for row in read_metrics(run.output) if row["kind"] == "train"]
    assert {"reward", "reward/zeros", "flat_groups", "reward/unscored", "length", "loss", "grad_norm"} <= set(rows[0])


def test_metrics_are_logged_with_their_step(toy_config: Build, write_config: WriteConfig) -> None:
    settings = {"steps": 6, "batch_size": 4, "log_every": 2, "schedule": "linear", "learning_rate": 0.6}
    run = train(write_config(toy_config(train=settings, evaluation={"every": 4})))
    logged = [(row["kind"], row["step"]) for row in read_metrics(run.output)]
    assert logged == [("eval", 0), ("train", 2), ("train", 4), ("eval", 4), ("train", 6), ("eval", 6)]
    rates = [row["learning_rate"] for row in read_metrics(run.output) if row["kind"] == "train"]
    assert rates == pytest.approx([0.5, 0.3, 0.1])


def test_a_round_of_several_steps_evaluates_and_saves_when_it_passes_the_interval(
    toy_online: Build, write_config: WriteConfig, saved_steps: SavedSteps
) -> None:
    # Rounds end at steps 4, 8 and 12; the intervals of 3 and 5 are passed at 4, 8 (3: 6; 5: 5) and not again.
    settings = {"steps": 12, "batch_size": 2, "prompts_per_round": 4, "epochs_per_round": 2, "learning_rate": 1e-3}
    sections = {"train": settings, "checkpoint": {"every": 5, "keep": 9}}
    evaluation = {"every": 3, "evaluators": [{"name": "generation"}]}
    run = train(write_config(toy_online(**sections, evaluation=evaluation)))
    assert [row["step"] for row in read_metrics(run.output) if row["kind"] == "eval"] == [0, 4, 8, 12]
    assert saved_steps(run.output) == [8, 12]
    assert run.round == 3


def test_equal_runs_give_equal_weights_and_other_seeds_others(
    toy_online: Build, write_config: WriteConfig, tables: Tables
) -> None:
    path = write_config(toy_online())
    folders = {"one": 0, "two": 0, "three": 1}
    runs = [train(path, {"output": str(path.with_name(name)), "train.seed": seed}) for name, seed in folders.items()]
    assert tables(runs[0]) == tables(runs[1]) != tables(runs[2])


def test_evaluating_changes_no_weight(toy_online: Build, write_config: WriteConfig, tables: Tables) -> None:
    evaluation = {"every": 1, "evaluators": [{"name": "generation", "count": 3}]}
    often = train(write_config(toy_online(evaluation=evaluation)))
    never = train(write_config(toy_online(output=str(often.output.with_name("never")))))
    assert tables(often) == tables(never)


def test_before_and_after_differ_by_the_weights_alone(toy_online: Build, write_config: WriteConfig) -> None:
    settings = {"steps": 2, "batch_size": 4, "learning_rate": 1e-30}
    evaluation = {"evaluators": [{"name": "generation", "count": 8}]}
    run = train(write_config(toy_online(train=settings, evaluation=evaluation)))
    assert run.after == run.before and run.examples_after == run.examples_before


def test_a_sum_of_objectives_reports_each(toy_config: Build, write_config: WriteConfig) -> None:
    both = [{"name": "dpo", "weight": 2.0}, {"name": "sft", "weight": 0.5}]
    run = train(write_config(toy_config(objective=both)))
    after = run.after
    assert after["loss"] == pytest.approx(2 * after["dpo/loss"] + 0.5 * after["sft/loss"], rel=1e-5)


# -- what a run writes


def test_the_resolved_configuration_reads_back_and_trains_the_same(offline: Path, tables: Tables) -> None:
    run = train(offline, {"train.steps": 3})
    saved = run.output / "config.yaml"
    assert load_config(saved) == run.config
    assert run.config.train.steps == 3
    again = train(saved, {"output": str(offline.with_name("again"))})
    assert tables(again) == tables(run)


def test_the_run_says_what_it_was_made_with(offline: Path) -> None:
    run = train(offline, {"train.seed": 7})
    document = json.loads((run.output / "run.json").read_text())
    assert document["seed"] == 7 and document["model"] == "toy"
    assert document["versions"]["torch"] == version("torch")
    plugins = {plugin["name"]: plugin for plugin in document["plugins"]}
    assert plugins["objectives"]["distribution"] == "mmalign"
    assert len(plugins["toy_plugin"]["sha256"]) == 64
    assert (
        document["data"].pop("eval")
        == hashlib.sha256("".join(one.to_json() for one in run.held_out).encode()).hexdigest()
    )
    assert document["data"] == {"train": run.source.fingerprint, "quarantined": 0}
    assert "2305.18290" in document["papers"]["dpo"]


def test_other_data_have_another_fingerprint(offline: Path, toy_pairs: Path) -> None:
    first = train(offline).source.fingerprint
    toy_pairs.write_text(toy_pairs.read_text().replace("3321", "3322"))
    assert train(offline, overwrite=True).source.fingerprint != first


def test_a_finished_run_leaves_model_card_and_checkpoint(offline: Path, saved_steps: SavedSteps) -> None:
    run = train(offline)
    assert (run.output / "model" / "model.safetensors").is_file()
    card = (run.output / "model" / "README.md").read_text()
    assert "`dpo`" in card and "## Held-out metrics" in card
    assert saved_steps(run.output) == [4]
    assert not list(run.output.glob("*.tmp"))


# -- configurations made in code


def test_a_configuration_made_in_code_trains(toy_config: Build) -> None:
    config = RunConfig.model_validate(toy_config())
    assert train(config).step == 4
    with pytest.raises(ConfigError, match="only a configuration file can be overridden"):
        train(config, {"train.steps": 2})


def test_a_disabled_plugin_offers_nothing(offline: Path) -> None:
    with pytest.raises(ConfigError, match=r"objective\.name: unknown 'dpo'(.|\n)*'objectives'.*disabled"):
        train(offline, disabled=["objectives"])


def test_a_check_writes_nothing(offline: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert check(offline).total_steps == 4
    assert sorted(tmp_path.rglob("*")) == before


# -- loading and evaluating runs


def test_a_run_is_loaded_with_its_newest_weights(offline: Path, tables: Tables) -> None:
    run = train(offline)
    loaded = load_run(run.output)
    assert tables(loaded) == tables(run) and loaded.step == 4
    assert evaluate(run.output) == run.after
    assert evaluate(offline) == run.before


def test_a_loaded_run_may_sample_and_score_otherwise_than_it_was_trained(
    offline: Path, toy_pairs: Path, tables: Tables
) -> None:
    run = train(offline)
    toy_pairs.rename(toy_pairs.with_name("moved.jsonl"))
    overrides = {"decoding.max_steps": 2, "rewards": [{"name": "zeros"}], "data.eval": None}
    loaded = load_run(run.output, overrides)
    assert tables(loaded) == tables(run)
    assert loaded.backend.reward_names == ("zeros",)
    with pytest.raises(
        CheckpointError, match=r'belongs to another model:\n  modality: {"name": "toy", .*now {"name": "toy_bound"'
    ):
        load_run(run.output, {**overrides, "modality.name": "toy_bound"})


def test_a_start_model_is_loaded_before_its_training_data_exist(offline: Path) -> None:
    overrides = {"data.train.path": "not_made_yet.jsonl", "data.eval": None}
    assert len(load_run(offline, overrides).backend.generate(load_run(offline).held_out[:2], 3)) == 2


def test_what_is_no_run_is_refused(offline: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not the folder of a run, no config\.yaml"):
        load_run(tmp_path)
    run = train(offline)
    for file in run.output.glob("checkpoints/*/*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        load_run(run.output)
    with pytest.raises(ConfigError, match=r"data\.eval: missing"):
        evaluate(offline, {"data.eval": None})
