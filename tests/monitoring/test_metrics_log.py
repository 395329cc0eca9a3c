"""The metrics log: strict JSON lines, each step once over resumes, trackers checked and fed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mmalign import ConfigError
from mmalign.monitoring.metrics_log import MetricsLog, check_trackers, read_metrics


class RecordingAccelerator:
    """Stands in for accelerate: keeps what it is told to log."""

    def __init__(self, is_main_process: bool = True) -> None:
        self.is_main_process = is_main_process
        self.projects: list[str] = []
        self.logged: list[tuple[dict[str, float], int]] = []
        self.trackers: list[Any] = []

    def init_trackers(self, project_name: str) -> None:
        self.projects.append(project_name)

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))


def steps(directory: Path) -> list[tuple[int, str]]:
    return [(row["step"], row["kind"]) for row in read_metrics(directory)]


def test_a_line_holds_step_time_kind_and_metrics(tmp_path: Path) -> None:
    MetricsLog(tmp_path).write(3, "train", {"loss": 0.25, "reward/length": 2})
    (row,) = read_metrics(tmp_path)
    assert row.pop("time") > 1.7e9
    assert row == {"step": 3, "kind": "train", "loss": 0.25, "reward/length": 2.0}


def test_numbers_that_are_not_finite_stay_strict_json(tmp_path: Path) -> None:
    MetricsLog(tmp_path).write(1, "train", {"loss": math.nan, "kl": -math.inf, "length": 4.0})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert (row["loss"], row["kl"], row["length"]) == (None, None, 4.0)
    assert row["non_finite"] == {"loss": "nan", "kl": "-inf"}


def test_every_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write(step, "train", {})
        assert len(read_metrics(tmp_path)) == step


def test_a_skipped_step_is_left_out(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, "train", {}, skip=True)
    log.write(2, "train", {}, skip=False)
    assert steps(tmp_path) == [(2, "train")]


def test_a_resumed_run_has_every_step_once(tmp_path: Path) -> None:
    first = MetricsLog(tmp_path)
    for step in (1, 2, 3, 4):
        first.write(step, "train", {"loss": float(step)})
        if step == 2:
            first.write(2, "eval", {"accuracy": 0.5})
    with first.path.open("a") as file:
        file.write('{"step": 5, "kind": "tr')
    resumed = MetricsLog(tmp_path, resumed_step=2)
    resumed.write(2, "eval", {"accuracy": 0.5})
    for step in (3, 4, 5):
        resumed.write(step, "train", {"loss": float(step)})
    assert steps(tmp_path) == [(1, "train"), (2, "train"), (2, "eval"), (3, "train"), (4, "train"), (5, "train")]


def test_a_new_run_starts_an_empty_log(tmp_path: Path) -> None:
    MetricsLog(tmp_path).write(1, "train", {})
    MetricsLog(tmp_path).write(0, "eval", {})
    assert steps(tmp_path) == [(0, "eval")]


def test_a_log_that_is_never_written_leaves_the_old_one(tmp_path: Path) -> None:
    MetricsLog(tmp_path).write(1, "train", {})
    MetricsLog(tmp_path)
    assert steps(tmp_path) == [(1, "train")]


def test_unreadable_lines_are_left_out(tmp_path: Path) -> None:
    MetricsLog(tmp_path).write(1, "train", {})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("\0\0\0\n")
    assert steps(tmp_path) == [(1, "train")]


def test_a_run_without_a_log_has_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    accelerator: Any = RecordingAccelerator(is_main_process=False)
    MetricsLog(tmp_path, ["tensorboard"], accelerator).write(1, "train", {"loss": 1.0})
    assert not list(tmp_path.iterdir())
    assert not accelerator.logged


def test_trackers_are_started_once_and_fed_by_kind(tmp_path: Path) -> None:
    accelerator: Any = RecordingAccelerator()
    log = MetricsLog(tmp_path / "dpo", ["tensorboard"], accelerator)
    assert not accelerator.projects
    log.write(1, "train", {"loss": 1.0})
    log.write(1, "eval", {"accuracy": 0.5})
    assert accelerator.projects == ["dpo"]
    assert accelerator.logged == [({"train/loss": 1.0}, 1), ({"eval/accuracy": 0.5}, 1)]


def test_tensorboard_writes_its_files(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, log_with=["tensorboard"], project_dir=str(tmp_path))
    log = MetricsLog(tmp_path, ["tensorboard"], accelerator)
    log.write(1, "train", {"loss": 1.0})
    log.close()
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_a_typo_in_a_tracker_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trackers\.1: unknown 'tensorbord'; did you mean 'tensorboard'\?"):
        MetricsLog(tmp_path, ["tensorboard", "tensorbord"])


def test_a_tracker_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    with pytest.raises(ConfigError, match=r"trackers\.0: 'comet_ml' is not installed; .*`pip install comet-ml`"):
        check_trackers(["comet_ml"])


def test_installed_trackers_pass() -> None:
    check_trackers(["tensorboard"])
