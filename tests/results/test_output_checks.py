"""`check` opens what `train` would write to, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmalign import ConfigError, RunConfig, check, train
from mmalign.monitoring import metrics_log
from mmalign.results.output_checks import check_disk
from mmalign.results.run_lock import lock_folder

Config = Callable[..., dict[str, Any]]


@pytest.fixture
def build(toy_config: Config) -> Callable[..., RunConfig]:
    return lambda **sections: RunConfig.model_validate(toy_config(**sections))


def test_check_leaves_nothing(build: Callable[..., RunConfig], tmp_path: Path) -> None:
    check(build(output=str(tmp_path / "a" / "b")))
    assert not (tmp_path / "a").exists()


def test_check_refuses_what_train_would(build: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("years")
    places = {
        tmp_path / "file": "is a file; give a folder",
        tmp_path / "file" / "run": "cannot be written",
        tmp_path / ("x" * 300): "cannot be written: File name too long",
        tmp_path / "used": "holds files that are not of a run",
        Path("/proc/run"): "cannot be written",
    }
    for place, expected in places.items():
        for command in (check, train):
            with pytest.raises(ConfigError, match=rf"output: .*{expected}"):
                command(build(output=str(place)))
    with lock_folder(tmp_path / "run"), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        check(build())


def test_check_opens_the_quarantine(toy_config: Config) -> None:
    config = toy_config()
    config["data"]["train"] |= {"on_error": "quarantine", "quarantine_dir": "/proc/bad"}
    with pytest.raises(ConfigError, match=r"data\.train\.quarantine_dir: /proc/bad cannot be written"):
        check(RunConfig.model_validate(config))


def test_a_tracker_that_is_broken_is_refused(build: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError(f"{name} needs another version of numpy")

    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["wandb"])
    monkeypatch.setattr(metrics_log, "importlib", SimpleNamespace(import_module=fail))
    with pytest.raises(ConfigError, match=r"trackers\.0: 'wandb' cannot be imported: ImportError: wandb needs another"):
        check(build(trackers=("wandb",)))


def test_a_disk_without_room_is_said(
    build: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """100 million weights: 0.4 GB exported, 1.2 GB a checkpoint with AdamW's moments; two stay, a third is written."""
    free = 0
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    config = build()
    with pytest.raises(ConfigError, match=r"a checkpoint and the model take about 1\.6 GB, the disk has 0\.0 GB left"):
        check_disk(config, 100_000_000)
    free = 2_000_000_000
    with caplog.at_level(logging.WARNING):
        check_disk(config, 100_000_000)
    assert "take about 4.0 GB, the disk has 2.0 GB left" in caplog.text
    caplog.clear()
    free = 4_100_000_000
    check_disk(config, 100_000_000)
    assert not caplog.messages
