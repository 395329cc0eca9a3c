"""The Python interface: what a run writes, when it refuses, how it goes on, and what its exports hold."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign import (
    CheckpointError,
    ConfigError,
    MmalignError,
    RunConfig,
    TrainingError,
    check,
    evaluate,
    load_config,
    load_run,
    train,
)
from mmalign.checkpoint import find_latest
from mmalign.metrics_log import read_metrics
from mmalign.run import Run

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]


@pytest.fixture
def offline(toy_config: Build, write_config: WriteConfig) -> Path:
    return write_config(toy_config())


def saved_steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


def tables(run: Run) -> list[float]:
    return list(run.policy.network.table.flatten().tolist())


# -- training


def test_offline_training_improves_what_it_trains_on(toy_config: Build, write_config: WriteConfig) -> None:
    run = train(write_config(toy_config(train={"steps": 20, "batch_size": 5, "learning_rate": 0.05})))
    assert run.finished and run.step == 20
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
    toy_online: Build, write_config: WriteConfig
) -> None:
    # Rounds end at steps 4, 8 and 12; the intervals of 3 and 5 are passed at 4, 8 (3: 6; 5: 5) and not again.
    settings = {"steps": 12, "batch_size": 2, "prompts_per_round": 4, "epochs_per_round": 2, "learning_rate": 1e-3}
    sections = {"train": settings, "checkpoint": {"every": 5, "keep": 9}}
    evaluation = {"every": 3, "evaluators": [{"name": "generation"}]}
    run = train(write_config(toy_online(**sections, evaluation=evaluation)))
    assert [row["step"] for row in read_metrics(run.output) if row["kind"] == "eval"] == [0, 4, 8, 12]
    assert saved_steps(run.output) == [8, 12]
    assert run.round == 3


def test_equal_runs_give_equal_weights_and_other_seeds_others(toy_online: Build, write_config: WriteConfig) -> None:
    path = write_config(toy_online())
    folders = {"one": 0, "two": 0, "three": 1}
    runs = [train(path, {"output": str(path.with_name(name)), "train.seed": seed}) for name, seed in folders.items()]
    assert tables(runs[0]) == tables(runs[1]) != tables(runs[2])


def test_evaluating_changes_no_weight(toy_online: Build, write_config: WriteConfig) -> None:
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


def test_the_resolved_configuration_reads_back_and_trains_the_same(offline: Path) -> None:
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
    assert document["data"] == {"train": run.source.fingerprint, "quarantined": 0}
    assert "2305.18290" in document["papers"]["dpo"]


def test_other_data_have_another_fingerprint(offline: Path, toy_pairs: Path) -> None:
    first = train(offline).source.fingerprint
    toy_pairs.write_text(toy_pairs.read_text().replace("3321", "3322"))
    assert train(offline, overwrite=True).source.fingerprint != first


def test_a_finished_run_leaves_model_card_and_checkpoint(offline: Path) -> None:
    run = train(offline)
    assert (run.output / "model" / "model.safetensors").is_file()
    card = (run.output / "model" / "README.md").read_text()
    assert "`dpo`" in card and "## Held-out metrics" in card
    assert saved_steps(run.output) == [4]
    assert not list(run.output.glob("*.tmp"))


# -- output folders


def test_a_used_folder_is_refused_and_left_alone(offline: Path) -> None:
    run = train(offline)
    files = {path: path.stat().st_mtime_ns for path in run.output.rglob("*")}
    with pytest.raises(ConfigError, match="holds a run; go on with --resume, replace it with --overwrite"):
        train(offline)
    assert {path: path.stat().st_mtime_ns for path in run.output.rglob("*")} == files


@pytest.mark.parametrize("option", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_other_files_is_never_touched(offline: Path, tmp_path: Path, option: dict[str, bool]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds files that are not of a run"):
        train(offline, **option)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_refused(offline: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        train(offline)


def test_resume_and_overwrite_exclude_each_other(offline: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        train(offline, resume=True, overwrite=True)


def test_overwriting_leaves_nothing_of_the_old_run(offline: Path) -> None:
    train(offline, {"train.steps": 9})
    run = train(offline, {"train.steps": 2}, overwrite=True)
    assert saved_steps(run.output) == [2]
    assert max(row["step"] for row in read_metrics(run.output)) == 2


def test_an_overwritten_run_that_fails_shows_no_model_of_the_old_one(offline: Path) -> None:
    run = train(offline)
    with pytest.raises(TrainingError):
        train(offline, {"objective": [{"name": "nan"}]}, overwrite=True)
    assert not (run.output / "model").exists() and not (run.output / "checkpoints").exists()


def test_a_configuration_that_is_refused_leaves_the_old_run_alone(offline: Path) -> None:
    run = train(offline)
    for wrong in ({"objective.beat": 1}, {"data.train.path": "nowhere.jsonl"}, {"train.mixed_precision": "fp8"}):
        with pytest.raises(MmalignError):
            train(offline, wrong, overwrite=True)
    assert saved_steps(run.output) == [4] and (run.output / "model").is_dir()


# -- going on


def test_a_resumed_run_ends_as_one_that_never_stopped(offline: Path) -> None:
    whole = train(offline, {"train.steps": 6, "output": str(offline.with_name("whole"))})
    train(offline, {"train.steps": 3})
    resumed = train(offline, {"train.steps": 6}, resume=True)
    assert tables(resumed) == tables(whole)
    assert resumed.after == whole.after and resumed.before == whole.before
    logs = [[(row["kind"], row["step"]) for row in read_metrics(run.output)] for run in (whole, resumed)]
    assert [row for row in logs[1] if row != ("eval", 3)] == logs[0]


def test_resuming_what_has_not_begun_starts_it(offline: Path) -> None:
    assert train(offline, resume=True).step == 4


def test_resuming_a_finished_run_changes_nothing(offline: Path) -> None:
    first = train(offline)
    again = train(offline, resume=True)
    assert tables(first) == tables(again) and again.step == 4
    assert again.after == first.after


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"objective.beta": 0.5}, "trained with another `objective`"),
        ({"modality.name": "toy_bound"}, "trained with another `modality`"),
        ({"decoding.max_steps": 3}, "trained with another `decoding`"),
    ],
)
def test_another_run_cannot_be_resumed(offline: Path, change: dict[str, Any], expected: str) -> None:
    train(offline, {"train.steps": 2})
    with pytest.raises(CheckpointError, match=expected):
        train(offline, change, resume=True)


def test_a_run_cannot_be_resumed_on_other_data(offline: Path, toy_pairs: Path) -> None:
    train(offline, {"train.steps": 2})
    toy_pairs.write_text(toy_pairs.read_text().replace("3321", "3322"))
    with pytest.raises(CheckpointError, match="the training data have changed"):
        train(offline, resume=True)


def test_damaged_checkpoints_are_not_silently_thrown_away(offline: Path) -> None:
    run = train(offline, {"train.steps": 2})
    latest = find_latest(run.output / "checkpoints")
    assert latest is not None
    for file in latest.glob("*.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="every checkpoint is damaged; start anew with --overwrite"):
        train(offline, resume=True)
    assert saved_steps(run.output) == [2]
    assert train(offline, overwrite=True).step == 4


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Sends the signal of Ctrl-C to this process in the middle of a step."""
    from mmalign import loop

    original = loop.optimiser_step

    def interrupting(run: Run, *arguments: Any, **options: Any) -> dict[str, float]:
        if run.step == step:
            signal.raise_signal(signal.SIGINT)
        return original(run, *arguments, **options)

    monkeypatch.setattr(loop, "optimiser_step", interrupting)


def test_an_interrupted_run_finishes_its_round_saves_and_can_go_on(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(offline, {"output": str(offline.with_name("whole"))})
    with monkeypatch.context() as patch:
        interrupt_at(patch, 1)
        run = train(offline)
    assert run.interrupted and run.step == 2
    assert saved_steps(run.output) == [2]
    assert not (run.output / "model").exists()
    resumed = train(offline, resume=True)
    assert not resumed.interrupted and tables(resumed) == tables(whole)


def test_an_interruption_in_the_last_round_is_none(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, 3)
    run = train(offline)
    assert not run.interrupted and run.after and (run.output / "model").is_dir()


# -- configurations made in code


def test_a_configuration_made_in_code_trains(toy_config: Build) -> None:
    config = RunConfig.model_validate(toy_config())
    assert train(config).step == 4
    with pytest.raises(ConfigError, match="only a configuration file can be overridden"):
        train(config, {"train.steps": 2})


def test_a_disabled_plugin_offers_nothing(offline: Path) -> None:
    with pytest.raises(ConfigError, match=r"objective\[0\]\.name: unknown 'dpo'(.|\n)*'objectives'.*disabled"):
        train(offline, disabled=["objectives"])


def test_a_check_writes_nothing(offline: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert check(offline).total_steps == 4
    assert sorted(tmp_path.rglob("*")) == before


# -- loading and evaluating runs


def test_a_run_is_loaded_with_its_newest_weights(offline: Path) -> None:
    run = train(offline)
    loaded = load_run(run.output)
    assert tables(loaded) == tables(run) and loaded.step == 4
    assert evaluate(run.output) == run.after
    assert evaluate(offline) == run.before


def test_a_loaded_run_may_sample_and_score_otherwise_than_it_was_trained(offline: Path, toy_pairs: Path) -> None:
    run = train(offline)
    toy_pairs.rename(toy_pairs.with_name("moved.jsonl"))
    overrides = {"decoding.max_steps": 2, "rewards": [{"name": "zeros"}], "data.eval": None}
    loaded = load_run(run.output, overrides)
    assert tables(loaded) == tables(run)
    assert loaded.backend.reward_names == ("zeros",)
    with pytest.raises(CheckpointError, match="another `modality`"):
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


# -- exports of a language model


@pytest.fixture(scope="module")
def adapted(tiny_text_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A short dpo run with an adapter on the tiny language model."""
    folder = tmp_path_factory.mktemp("adapted")
    rows = [{"prompt": f"Say {word}.", "chosen": f"{word}!", "rejected": "no"} for word in ("sea", "rain", "music")]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(folder / "pairs.jsonl")}},
        "objective": {"name": "dpo"},
        "train": {"steps": 3, "batch_size": 3, "learning_rate": 0.01, "dtype": "float32"},
        "checkpoint": {"merged": True},
        "output": str(folder / "run"),
    }
    return train(RunConfig.model_validate(config))


IDS = torch.tensor([[5, 60, 17, 200, 3]])


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = network.eval()(input_ids=IDS).logits
    return found


def test_training_moved_the_policy(adapted: Run, tiny_text_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_text_model)
    assert (logits(adapted.model.network) - logits(base)).abs().max() > 1e-3
    with adapted.model.network.disable_adapter():
        assert torch.equal(logits(adapted.model.network), logits(base))


def test_the_exported_adapter_loads_in_peft(adapted: Run, tiny_text_model: Path) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_text_model)
    expected = logits(adapted.model.network)
    assert torch.allclose(logits(PeftModel.from_pretrained(base, adapted.output / "model")), expected, atol=1e-6)
    automatic = AutoPeftModelForCausalLM.from_pretrained(adapted.output / "model")
    assert torch.allclose(logits(automatic), expected, atol=1e-6)


def test_the_merged_export_gives_the_logits_of_the_policy(adapted: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = AutoModelForCausalLM.from_pretrained(adapted.output / "merged")
    assert torch.allclose(logits(merged), logits(adapted.model.network), atol=1e-5)
    assert AutoTokenizer.from_pretrained(adapted.output / "merged")("sea")["input_ids"]


def test_exporting_leaves_the_policy_as_it_was(adapted: Run) -> None:
    assert tables_of(load_run(adapted.output)) == tables_of(adapted)


def tables_of(run: Run) -> dict[str, list[float]]:
    return {name: value.flatten().tolist() for name, value in run.trainable().items()}


def test_a_score_head_is_exported_and_loaded(tiny_text_model: Path, adapted: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = adapted.config.model_dump(mode="json")
    config |= {"objective": [{"name": "reward_model"}], "output": str(tmp_path / "scores")}
    run = train(RunConfig.model_validate(config))
    heads = load_file(run.output / "model" / "heads.safetensors")
    assert set(heads) == {"scores.weight", "scores.bias"}
    assert torch.equal(heads["scores.weight"], run.policy.heads["scores"].weight.detach())
    assert tables_of(load_run(run.output)) == tables_of(run)
