"""The folder of a run: when it is refused, replaced, gone on from, and what an interruption leaves in it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign import CheckpointError, ConfigError, MmalignError, TrainingError, train
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.results.checkpoint import find_latest
from mmalign.run import Run

Build = Callable[..., dict[str, Any]]
WriteConfig = Callable[..., Path]
SavedSteps = Callable[[Path], list[int]]
Tables = Callable[[Run], list[float]]


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


def test_overwriting_leaves_nothing_of_the_old_run(offline: Path, saved_steps: SavedSteps) -> None:
    train(offline, {"train.steps": 9})
    run = train(offline, {"train.steps": 2}, overwrite=True)
    assert saved_steps(run.output) == [2]
    assert max(row["step"] for row in read_metrics(run.output)) == 2


def test_an_overwritten_run_that_fails_shows_no_model_of_the_old_one(offline: Path) -> None:
    run = train(offline)
    with pytest.raises(TrainingError):
        train(offline, {"objective": [{"name": "nan"}]}, overwrite=True)
    assert not (run.output / "model").exists() and not (run.output / "checkpoints").exists()


def test_a_configuration_that_is_refused_leaves_the_old_run_alone(offline: Path, saved_steps: SavedSteps) -> None:
    run = train(offline)
    for wrong in ({"objective.beat": 1}, {"data.train.path": "nowhere.jsonl"}, {"train.mixed_precision": "fp8"}):
        with pytest.raises(MmalignError):
            train(offline, wrong, overwrite=True)
    assert saved_steps(run.output) == [4] and (run.output / "model").is_dir()


# -- going on


def test_a_resumed_run_ends_as_one_that_never_stopped(offline: Path, tables: Tables) -> None:
    whole = train(offline, {"train.steps": 6, "output": str(offline.with_name("whole"))})
    train(offline, {"train.steps": 3})
    resumed = train(offline, {"train.steps": 6}, resume=True)
    assert tables(resumed) == tables(whole)
    assert resumed.after == whole.after and resumed.before == whole.before
    logs = [[(row["kind"], row["step"]) for row in read_metrics(run.output)] for run in (whole, resumed)]
    assert [row for row in logs[1] if row != ("eval", 3)] == logs[0]


def test_resuming_what_has_not_begun_starts_it(offline: Path) -> None:
    assert train(offline, resume=True).step == 4


def test_resuming_a_finished_run_changes_nothing(offline: Path, tables: Tables) -> None:
    first = train(offline)
    again = train(offline, resume=True)
    assert tables(first) == tables(again) and again.step == 4
    assert again.after == first.after


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"objective.beta": 0.5}, r"objective\.beta: 0\.1, now 0\.5"),
        ({"modality.name": "toy_bound"}, r'modality: {"name": "toy", .*now {"name": "toy_bound"'),
        ({"decoding.max_steps": 3}, r"decoding\.max_steps: 6, now 3"),
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


def test_damaged_checkpoints_are_not_silently_thrown_away(offline: Path, saved_steps: SavedSteps) -> None:
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
    from mmalign.training import loop

    original = loop.optimiser_step

    def interrupting(run: Run, *arguments: Any, **options: Any) -> dict[str, float]:
        if run.step == step:
            signal.raise_signal(signal.SIGINT)
        return original(run, *arguments, **options)

    monkeypatch.setattr(loop, "optimiser_step", interrupting)


def test_an_interrupted_run_finishes_its_round_saves_and_can_go_on(
    offline: Path, monkeypatch: pytest.MonkeyPatch, saved_steps: SavedSteps, tables: Tables
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
