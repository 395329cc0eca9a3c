"""What a run may differ in from the checkpoint that it goes on from: a table of what is refused, and what is noted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmalign import CheckpointError, RunConfig, load_run, train
from mmalign.results.named_files import digest_file, digest_named_files
from mmalign.run import Run
from mmalign.testing import build_tiny_text_model

NEIGHBOUR = "SCALE = 1.0\n"
PLUGIN = """
from mmalign import ObjectiveSpec, hookimpl
from neighbour import SCALE

@hookimpl
def register_objectives():
    return [ObjectiveSpec(name="mine", summary="Mine.", loss="my_resumed:mine_loss", per="response")]

def mine_loss(policy_sequence_logps):
    return -SCALE * policy_sequence_logps, {}
"""
REWARD = "def zeros(responses):\n    return [one.count('0') for one in responses]\n"


# -- keys

SHAPED = {
    "objective.beta": 0.5,
    "train.learning_rate": 0.1,
    "train.batch_size": 5,
    "train.schedule": "cosine",
    "train.warmup_steps": 1,
    "train.weight_decay": 0.1,
    "train.max_grad_norm": 2.0,
    "train.adam_betas": [0.9, 0.95],
    "train.optimiser": "adafactor",
    "train.mixed_precision": "bf16",
    "train.seed": 7,
    "decoding.max_steps": 3,
    "data.train.limit": 3,
    "data.train.shuffle": False,
    "data.train.transforms": [{"name": "subset", "count": 8}],
    "modality.dropout": 0.5,
    "reference.strategy": "ema",
}
HARMLESS = {
    "train.steps": 3,
    "train.micro_batch_size": 1,
    "train.log_every": 2,
    "checkpoint.every": 1,
    "checkpoint.keep": 5,
    "evaluation.examples": 1,
    "data.eval.limit": 2,
    "data.train.on_error": "quarantine",
}


@pytest.fixture
def stopped(offline: Path) -> Path:
    """The configuration of a run of two steps."""
    train(offline, {"train.steps": 2})
    return offline


def test_every_key_that_shaped_past_steps_is_refused(stopped: Path) -> None:
    output = Path(yaml.safe_load(stopped.read_text())["output"])
    before = snapshot(output)
    for key, value in SHAPED.items():
        more = {"reference.decay": 0.9} if key == "reference.strategy" else {}
        with pytest.raises(
            CheckpointError, match=rf"(?s)step 2 was trained with other settings.*\n  {key}[:.]"
        ) as caught:
            train(stopped, {key: value, **more}, resume=True)
        assert f"--allow-changed {key}" in str(caught.value)
    assert snapshot(output) == before


def test_another_part_is_shown_whole(stopped: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r'\n  objective: {"name": "dpo", .*}, now {"name": "ipo", .*"tau": 0\.1}\n'
    ):
        train(stopped, {"objective": {"name": "ipo"}}, resume=True)


def test_harmless_keys_may_change_and_are_noted(stopped: Path) -> None:
    run = train(stopped, HARMLESS, resume=True)
    assert run.step == 3
    noted = {row["key"]: row for row in json.loads((run.output / "run.json").read_text())["changes"]}
    assert set(noted) == set(HARMLESS)
    assert noted["train.steps"] == {"step": 2, "key": "train.steps", "old": 2, "new": 3}
    assert (run.output / "config.yaml").read_text().startswith("# up to step 2: ")
    assert "`train.steps` up to step 2: `2`" in (run.output / "model" / "README.md").read_text()
    assert load_run(run.output).step == 3  # the comments do not hinder
    again = train(stopped, {**HARMLESS, "train.steps": 4, "evaluation.examples": 0}, resume=True)
    steps = [(row["step"], row["key"]) for row in again.changes]
    assert (2, "train.steps") in steps and (3, "train.steps") in steps and (3, "evaluation.examples") in steps


def test_a_key_that_is_allowed_changes_and_is_noted(stopped: Path) -> None:
    changes = {"train.learning_rate": 0.1, "objective.beta": 0.5, "train.steps": 3}
    with pytest.raises(CheckpointError, match=r"\n  train\.learning_rate: 0\.05, now 0\.1\n"):
        train(stopped, changes, resume=True, allow_changed=["objective"])
    run = train(stopped, changes, resume=True, allow_changed=["objective", "train.learning_rate"])
    noted = {row["key"]: row for row in run.changes}
    assert noted["train.learning_rate"]["allowed"] and noted["objective.beta"]["allowed"]
    assert "allowed" not in noted["train.steps"]


def test_a_default_that_is_written_out_is_no_change(stopped: Path) -> None:
    assert train(stopped, {"objective.beta": 0.1, "train.steps": 3}, resume=True).step == 3


# -- what was loaded


def snapshot(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def text_run(tmp_path: Path, toy_pairs: Path) -> Callable[..., Run]:
    """Trains, or goes on, from a model in `tmp_path`."""
    build_tiny_text_model(tmp_path / "model")

    def run(steps: int = 2, *, lora: bool = True, **options: Any) -> Run:
        config = {
            "modality": {"name": "text", "model": str(tmp_path / "model"), "lora": {"rank": 2} if lora else None},
            "data": {"train": {"path": str(toy_pairs)}, "eval": {"path": str(toy_pairs)}},
            "objective": {"name": "dpo"},
            "train": {"steps": steps, "batch_size": 2, "dtype": "float32"},
            "output": str(tmp_path / "run"),
        }
        return train(RunConfig.model_validate(config), **options)

    return run


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, "modality.weights: .*the base weights are others"),
        ({"hidden_size": 48}, "modality.shapes: .* parameters"),
        ({"vocabulary": 300}, "modality.encoding: .*the tokenizer, the chat template"),
    ],
)
def test_another_base_model_under_the_same_name(
    text_run: Callable[..., Run], tmp_path: Path, change: dict[str, int], expected: str, lora: bool
) -> None:
    text_run(lora=lora)
    build_tiny_text_model(tmp_path / "model", **change)
    with pytest.raises(CheckpointError, match=f"(?s)other settings.*{expected}"):
        text_run(3, lora=lora, resume=True)
    with pytest.raises(CheckpointError, match=f"(?s)belongs to another model.*{expected}"):
        load_run(tmp_path / "run")
    allowed = ["modality"]
    if "seed" in change:
        run = text_run(3, lora=lora, resume=True, allow_changed=allowed)
        assert run.step == 3 and "modality.weights" in {row["key"] for row in run.changes}
    elif "hidden_size" in change:
        with pytest.raises(CheckpointError, match="the model is not the one that was trained"):
            text_run(3, lora=lora, resume=True, allow_changed=allowed)


def test_another_template_under_the_same_name(text_run: Callable[..., Run], tmp_path: Path) -> None:
    text_run()
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "Assistant") + "{# other #}")
    with pytest.raises(CheckpointError, match=r"modality\.encoding"):
        text_run(3, resume=True)


@pytest.mark.parametrize("file", ["my_resumed.py", "neighbour.py"])
def test_code_that_has_changed(
    file: str,
    toy_config: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.modules", {**__import__("sys").modules})
    (tmp_path / "my_resumed.py").write_text(PLUGIN)
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    config = toy_config(objective={"name": "mine"}, train={"steps": 1, "batch_size": 2})
    config["plugins"] = [*config["plugins"], str(tmp_path / "my_resumed.py")]
    train(RunConfig.model_validate(config))
    (tmp_path / file).write_text((tmp_path / file).read_text() + "# another line\n")
    config["train"]["steps"] = 2
    with pytest.raises(CheckpointError, match=rf"plugins:{file}: .*another content"):
        train(RunConfig.model_validate(config), resume=True)
    assert train(RunConfig.model_validate(config), resume=True, allow_changed=["plugins"]).step == 2


def test_a_reward_function_that_has_changed(toy_online: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "my_reward.py"
    file.write_text(REWARD)
    rewards = [{"name": "python", "function": f"{file}:zeros"}]
    config = toy_online(rewards=rewards, train={"steps": 1, "batch_size": 2})
    train(RunConfig.model_validate(config))
    file.write_text(REWARD.replace("'0'", "'1'"))
    config["train"]["steps"] = 2
    with pytest.raises(CheckpointError, match=r"rewards\.0\.function:my_reward\.py: .*another content"):
        train(RunConfig.model_validate(config), resume=True)


def test_a_large_file_is_known_by_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.results.named_files._WHOLE", 1 << 16)
    file = tmp_path / "large.bin"
    content = bytearray(1 << 18)
    file.write_bytes(content)
    before = digest_file(file)
    assert digest_file(file) == before
    content[-1] = 1
    file.write_bytes(content)
    assert digest_file(file) != before


def test_plain_words_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the working folder may have the name of a part or a value."""
    monkeypatch.chdir(tmp_path)
    for name in ("dpo", "sum", "cosine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    config = {"objective": {"name": "dpo"}, "a": ["sum", "."], "b": "mine", "data": {"train": {"transforms": []}}}
    assert list(digest_named_files(config)) == ["b:config.json"]


# -- finished, not begun, older


def test_a_finished_run_is_left_as_it_is(offline: Path) -> None:
    run = train(offline)
    before = snapshot(run.output)
    again = train(offline, {"checkpoint.keep": 7, "train.steps": 3}, resume=True)
    assert snapshot(run.output) == before
    assert again.after == run.after and again.before == run.before and again.step == 4


def test_a_run_killed_before_its_export_finishes_it(offline: Path) -> None:
    run = train(offline)
    (run.output / "results.json").unlink()
    checkpoint = next((run.output / "checkpoints").iterdir())
    written = checkpoint.stat().st_mtime_ns
    again = train(offline, resume=True)
    assert again.after == run.after and (run.output / "results.json").is_file()
    assert checkpoint.stat().st_mtime_ns == written


def test_steps_without_a_checkpoint_are_refused(offline: Path) -> None:
    run = train(offline, {"checkpoint.at_end": False})
    assert not (run.output / "checkpoints").exists()
    before = snapshot(run.output)
    with pytest.raises(CheckpointError, match=r"no checkpoint to go on from, .* step 4: .*--overwrite"):
        train(offline, resume=True)
    assert snapshot(run.output) == before
    assert train(offline, overwrite=True).step == 4


def test_an_older_checkpoint_goes_on(offline: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    state = Run.state
    older = {"loaded", "changes"}
    with monkeypatch.context() as patch:
        patch.setattr(Run, "state", lambda run: {key: one for key, one in state(run).items() if key not in older})
        train(offline, {"train.steps": 2})
    run = train(offline, {"train.steps": 3}, resume=True)
    assert run.step == 3 and "is from before checkpoints held digests" in caplog.text


def test_a_checkpoint_with_keys_that_are_gone_is_refused_by_name(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = Run.state
    with monkeypatch.context() as patch:

        def with_old_key(run: Run) -> dict[str, Any]:
            found = state(run)
            found["config"]["train"]["gone"] = 1
            return found

        patch.setattr(Run, "state", with_old_key)
        train(offline, {"train.steps": 2})
    with pytest.raises(CheckpointError, match=r"written by another version of mmalign: .*train\.gone"):
        train(offline, resume=True)
