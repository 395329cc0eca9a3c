"""Wrong configurations: each is one message that names the place and the mend, exit code 2, no traceback, no files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmalign.cli.main import main

Change = Callable[[dict[str, Any]], None]
REWARDS = [{"name": "length", "target": 5}]


@pytest.fixture
def config(tiny_text_model: Path, toy_pairs: Path, tmp_path: Path) -> dict[str, Any]:
    """A right configuration of an offline run, to be spoilt."""
    return {
        "modality": {"name": "text", "model": str(tiny_text_model), "lora": {"rank": 2}},
        "data": {"train": {"path": str(toy_pairs)}},
        "objective": {"name": "dpo", "beta": 0.1},
        "train": {"steps": 1, "batch_size": 2},
        "output": str(tmp_path / "run"),
    }


def put(path: str, value: Any) -> Change:
    """Sets a key, by its path in dots."""

    def change(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for key in parents:
            config = config.setdefault(key, {})
        config[last] = value

    return change


def drop(key: str) -> Change:
    return lambda config: config.pop(key) and None


def go_online(**sections: Any) -> Change:
    parts = {"collector": {"name": "group"}, "rewards": REWARDS, "advantage": {"name": "grpo"}}
    return lambda config: config.update({"objective": {"name": "grpo"}} | parts | sections)


# How the configuration is spoilt, and what the one message has to say.
CASES: dict[str, tuple[Change, tuple[str, ...]]] = {
    "unknown key": (put("trian", {}), ("trian: unknown key", "did you mean 'train'")),
    "unknown nested key": (put("train.lerning_rate", 1e-4), ("train.lerning_rate", "did you mean 'learning_rate'")),
    "unknown parameter": (put("objective.bata", 0.1), ("objective.bata", "did you mean 'beta'")),
    "unknown objective": (
        put("objective", {"name": "dop"}),
        ("objective.name: unknown 'dop'", "did you mean 'dpo'"),
    ),
    "unknown modality": (put("modality.name", "txet"), ("modality.name: unknown 'txet'", "did you mean 'text'")),
    "no objective": (drop("objective"), ("objective: missing",)),
    "empty objective list": (put("objective", []), ("objective", "at least 1")),
    "no output": (drop("output"), ("output: missing",)),
    "neither steps nor epochs": (put("train", {"batch_size": 2}), ("train.steps or train.epochs is needed",)),
    "wrong type": (put("train.steps", "many"), ("train.steps: expected a whole number, got 'many'",)),
    "true for a number": (put("objective.beta", True), ("objective.beta: expected a number, got true",)),
    "out of range": (put("objective.beta", -1), ("objective.beta", "greater than 0", "-1")),
    "not a finite number": (
        put("train.learning_rate", float("inf")),
        ("train.learning_rate: expected a finite number",),
    ),
    "wrong choice": (put("train.schedule", "cosin"), ("train.schedule", "did you mean 'cosine'")),
    "a text for a section": (put("train", "fast"), ("train: expected a mapping of keys to values, got 'fast'",)),
    "no such data": (put("data.train.path", "nowhere.jsonl"), ("data.train.path: no such file 'nowhere.jsonl'",)),
    "no such model folder": (put("modality.model", "./nowhere"), ("modality.model: no such folder", "./nowhere")),
    "no such package": (put("modality.model", "package:no_such/x.gguf"), ("modality.model", "pip install")),
    "adapter without a target": (
        put("modality.lora", {"targets": ["q_porj"]}),
        ("modality.lora.targets: no linear layer 'q_porj'", "did you mean 'q_proj'"),
    ),
    "advantage without a collector": (put("advantage", {"name": "grpo"}), ("advantage", "add `collector:")),
    "advantage without rewards": (go_online(rewards=[]), ("rewards: missing", "advantage 'grpo'")),
    "online objective offline": (
        put("objective", {"name": "grpo"}),
        ("objective 'grpo'", "'behaviour_logps'", "collector"),
    ),
    "offline objective online": (
        go_online(objective={"name": "dpo"}),
        ("objective 'dpo' needs the quantity 'pairs'", "without `collector`"),
    ),
    "unknown reward": (go_online(rewards=[{"name": "vaderr"}]), ("rewards.name: unknown 'vaderr'", "'vader'")),
    "no such reward function": (
        go_online(rewards=[{"name": "python", "function": "nowhere.score"}]),
        ("rewards", "cannot import 'nowhere'"),
    ),
    "constant aggregation without horizon": (
        put("objective", {"name": "sft", "aggregation": "constant"}),
        ("objective", "horizon"),
    ),
    "no such plugin file": (put("plugins", ["./nowhere.py"]), ("nowhere.py", "no such")),
    "unknown tracker": (
        put("trackers", ["tensorbord"]),
        ("trackers.0: unknown", "did you mean 'tensorboard'"),
    ),
    "fp16 on a CPU": (put("train.mixed_precision", "fp16"), ("train.mixed_precision", "fp16 needs a GPU")),
    "feedback of the wrong kind": (put("data.train.columns", {"labels": "notes"}), ("notes",)),
}


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mmalign", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    return int(exit.value.code or 0)


def test_the_unspoilt_configuration_is_right(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "right.yaml"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("COLUMNS", "200")
    assert run_command(monkeypatch, "check", str(path)) == 0
    assert "reference_chosen_sequence_logps" in capfd.readouterr().out


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_configuration_is_one_clear_message(
    case: str,
    command: str,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change, expected = CASES[case]
    change(config)
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(config))
    assert run_command(monkeypatch, command, str(path)) == 2
    message = capfd.readouterr().err
    assert "Traceback" not in message
    errors = message[message.index("error:") :].strip().splitlines()
    assert len(errors) <= 4, message
    for words in expected:
        assert words in " ".join(errors), message
    assert not (tmp_path / "run").exists()


FILES = {
    "missing file": ("", None, ("no such file",)),
    "not YAML": ("wrong.yaml", "train: {steps: 1\nobjective: x", ("not valid YAML", "line")),
    "a list": ("wrong.yaml", "- a\n- b\n", ("expected a mapping",)),
    "empty": ("wrong.yaml", "", ("missing",)),
    "not text": ("wrong.yaml", b"\xff\xfe\x00\x01", ("UTF-8",)),
    "unknown variable": ("wrong.yaml", "output: ${nowhere}\n", ("nowhere",)),
    "python object": ("wrong.yaml", "output: !!python/object/apply:os.getcwd []\n", ("not valid YAML",)),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_is_one_clear_message(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name, content, expected = FILES[case]
    path = tmp_path / (name or "missing.yaml")
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run_command(monkeypatch, "check", str(path)) == 2
    message = capfd.readouterr().err
    assert "Traceback" not in message
    assert path.name in message
    for words in expected:
        assert words in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.steps", "expected key.path=value"),
        ("train.stesp=3", "did you mean 'steps'"),
        ("objective.0.bata=3", "did you mean 'beta'"),
    ],
)
def test_a_wrong_override_is_one_clear_message(
    override: str,
    words: str,
    config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config["objective"] = [config["objective"]]
    path = tmp_path / "right.yaml"
    path.write_text(yaml.safe_dump(config))
    assert run_command(monkeypatch, "check", str(path), override) == 2
    message = capfd.readouterr().err
    assert words in message
    assert "Traceback" not in message
