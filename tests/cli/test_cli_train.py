"""The commands that work with a model, as a user types them: what is printed, written and returned."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mmalign.cli.main import app, main
from mmalign.data.records import Record
from mmalign.monitoring.metrics_log import read_metrics

Build = Callable[..., dict[str, Any]]
SAMPLE = ["generate", "{config}", "--prompt", "x", "--collector"]


@pytest.fixture
def offline(toy_config: Build, write_config: Callable[..., Path]) -> str:
    evaluation = {"evaluators": [{"name": "generation"}]}
    return str(write_config(toy_config(rewards=[{"name": "zeros"}], evaluation=evaluation)))


def invoke(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.output)


def fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> str:
    """The message of a command that a user can mend: one error, exit code 2, nothing on standard output."""
    monkeypatch.setattr(sys, "argv", ["mmalign", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.out == "" and captured.err.startswith("error: ")
    return captured.err


def test_train_prints_the_metrics_before_and_after(offline: str, tmp_path: Path) -> None:
    output = invoke("train", offline, "train.steps=6", "train.learning_rate=0.1")
    assert "held-out metrics" in output and "reward_accuracies" in output and "generation/reward" in output
    assert "examples" in output
    assert f"6 steps; model, checkpoints and metrics are in {tmp_path / 'run'}" in output
    assert (tmp_path / "run" / "model").is_dir()


def test_train_resumes_and_overwrites_when_told(offline: str, tmp_path: Path) -> None:
    invoke("train", offline, "train.steps=2")
    invoke("train", offline, "--resume")
    steps = [row["step"] for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert steps == [1, 2, 3, 4]
    invoke("train", offline, "train.steps=1", "--overwrite")
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [0, 1, 1]


def test_check_prints_the_plan_and_trains_nothing(offline: str, tmp_path: Path) -> None:
    output = invoke("check", offline)
    for piece in ("policy_chosen_sequence_logps", "zeros", "4 steps of 4 prompts", "frozen copy"):
        assert piece in output
    rows = [line.replace("│", " ").split() for line in output.splitlines()]
    assert ["objective", "dpo", "mmalign", version("mmalign")] in rows
    assert ["train", "10", "20", "10", "20", "3.0", "4", "3.0", "0", "0"] in rows
    assert not (tmp_path / "run").exists()


def test_eval_of_a_run_and_of_its_start_differ(offline: str, tmp_path: Path) -> None:
    invoke("train", offline, "train.steps=8", "train.learning_rate=0.1")
    start, trained = invoke("eval", offline), invoke("eval", str(tmp_path / "run"))
    assert "0.6931" in start and "0.6931" not in trained
    for output in (start, trained):
        assert "reward_accuracies" in output and "generation/length" in output


def test_generate_shows_responses_with_their_reward(offline: str) -> None:
    output = invoke("generate", offline, "--prompt", "[bold]x[/bold]", "--prompt", "yy", "--count", "3")
    lines = output.splitlines()
    # A prompt is shown as it is, never as markup.
    assert lines[0] == "[bold]x[/bold]" and lines[4] == "yy"
    for line in (*lines[1:4], *lines[5:8]):
        reward, text = line.split()
        assert float(reward.strip("[]")) == pytest.approx(text.count("0") / 6, abs=1e-3)


def test_generate_is_seeded(offline: str) -> None:
    first = invoke("generate", offline, "--prompt", "x", "--count", "5")
    assert invoke("generate", offline, "--prompt", "x", "--count", "5") == first
    assert invoke("generate", offline, "train.seed=1", "--prompt", "x", "--count", "5") != first


@pytest.mark.parametrize("given", ["revise", "{name: revise, revisions: 0, group_size: 2, keep: true}"])
def test_generate_samples_by_a_collector(offline: str, tmp_path: Path, given: str) -> None:
    made = tmp_path / "made.jsonl"
    options = ["--prompt", "x", "--prompt", "yy", "--collector", given, "--output", str(made)]
    invoke("generate", offline, *options)
    records = [Record.from_json(line) for line in made.read_text().splitlines()]
    assert [record.prompt_text for record in records] == ["x", "yy"]
    assert [len(record.responses) for record in records] == [1 if given == "revise" else 2] * 2


def test_generated_pairs_train(offline: str, tmp_path: Path, toy_pairs: Path) -> None:
    made = tmp_path / "made" / "pairs.jsonl"
    options = ["--data", str(toy_pairs), "--count", "6", "--pairs", "2", "--output", str(made)]
    # The file that the configuration trains on is the one that is being made.
    invoke("generate", offline, f"data.train.path={made}", *options)
    records = [Record.from_json(line) for line in made.read_text().splitlines()]
    assert [record.id for record in records] == [f"p{index}" for index in range(10)]
    assert any(len(record.labels) == 2 for record in records)
    assert "6 steps" in invoke("train", offline, f"data.train.path={made}", "train.steps=6")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "{config}", "objective.beat=1"], "objective.beat"),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["check", "{config}", "objective.name=dop"], "did you mean 'dpo'?"),
        (["generate", "{config}"], "nothing to answer; give --prompt TEXT or --data FILE"),
        (["generate", "{config}", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        ([*SAMPLE, "revize"], "--collector.name: unknown 'revize'; did you mean 'revise'"),
        ([*SAMPLE, "{{name: revise, revision: 1}}"], "--collector.revision: unknown key"),
        ([*SAMPLE, "[1, 2]"], "--collector: expected a name, or {name: ..., parameters}, got '[1, 2]'"),
        ([*SAMPLE, "revise", "--count", "2"], "--count: the collector says how many responses a prompt gets"),
        (["eval", "{config}", "data.eval=null"], "data.eval: missing"),
        (["eval", "{folder}"], "not the folder of a run"),
        (["--no-plugin", "objectives", "train", "{config}"], "'objectives'"),
        (["--no-plugin", "nothing", "train", "{config}"], "--no-plugin: unknown plugin 'nothing'"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    offline: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    filled = [argument.format(config=offline, folder=tmp_path) for argument in arguments]
    message = fail(monkeypatch, capsys, filled)
    assert expected in message and "Traceback" not in message
    assert not (tmp_path / "run").exists()


SLOW_TRAINING = """
import sys, time
from mmalign.training import loop
from mmalign.cli.main import main

original = loop.optimiser_step

def slow(*arguments, **options):
    time.sleep(0.05)
    return original(*arguments, **options)

loop.optimiser_step = slow
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_so_by_the_exit_code(offline: str, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", SLOW_TRAINING, "train", offline, "train.steps=100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    wait_for_steps(tmp_path / "run", 3, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "of 100000; everything is saved, continue with --resume" in output
    assert "stopping after this round and saving" in errors and "Traceback" not in errors
    steps = max(row["step"] for row in read_metrics(tmp_path / "run"))
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["step"] == steps >= 3
    assert f"stopped after step {steps}" in output
    assert f"{steps + 2} steps" in invoke("train", offline, f"train.steps={steps + 2}", "--resume")


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(row["kind"] == "train" and row["step"] >= steps for row in read_metrics(folder)):
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no step {steps} in time: {process.communicate()[1]}")
