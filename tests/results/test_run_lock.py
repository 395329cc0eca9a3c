"""One process a run folder: the second is refused, whoever dies leaves nothing locked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmalign import ConfigError, train
from mmalign.results.run_lock import LOCK, lock_folder

HOLD = """
import sys
from pathlib import Path
from mmalign.results.run_lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.communicate("")


def test_a_second_process_is_refused_with_pid_and_host(offline: Path, tmp_path: Path) -> None:
    with held_by_another(tmp_path / "run") as process:
        expected = rf"run is in use by process {process.pid} on {socket.gethostname()}, since 20\d\d-"
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(ConfigError, match=expected):
                train(offline, **options)
    assert train(offline).step == 4
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_killed_process_holds_nobody_up(tmp_path: Path) -> None:
    with held_by_another(tmp_path / "run") as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / "run" / LOCK).is_file()
    with lock_folder(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / LOCK).read_text()


def test_the_same_process_is_refused_too(tmp_path: Path) -> None:
    with lock_folder(tmp_path), pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        with lock_folder(tmp_path):
            pass


def test_a_folder_in_which_nothing_came_goes_again(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).is_file()
    assert not (tmp_path / "a").exists()


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"output: .* cannot be written: "), lock_folder(tmp_path / "file" / "run"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
