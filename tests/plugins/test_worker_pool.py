"""Python functions in worker processes: what is slow, hangs or crashes costs one sample, and the pool goes on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from math import isnan
from pathlib import Path

import pytest

from mmalign import ConfigError, Record, Response, Sample
from mmalign.config.components import RewardComponent
from mmalign.config.validation import validate
from mmalign.plugins.discovery import Candidate
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign_rewards.python_function import PythonFunction, PythonFunctionConfig

SOURCE = """
import os, time
from math import nan

def find_socket():
    import gc, socket
    return next(one for one in gc.get_objects() if isinstance(one, socket.socket) and one.fileno() >= 0)

def misbehave(responses):
    import subprocess
    (response,) = responses
    sleeping = ["sleep", "300"]
    if response == "half a message":
        find_socket().send(b"\\0\\0\\0")
        time.sleep(60)
    if response == "no message":
        find_socket().send((5).to_bytes(8, "big") + b"hello")
        time.sleep(60)
    if response == "endless message":
        find_socket().send((1 << 40).to_bytes(8, "big"))
        time.sleep(60)
    if response == "memory":
        return [float(len(bytearray(400 * 2**20)))]
    if response == "many":
        for _ in range(8):
            subprocess.Popen(sleeping)
        time.sleep(60)
    if response.startswith("child"):
        # In a session of its own, its parent gone: a daemon.
        pid = subprocess.check_output(["sh", "-c", "setsid sleep 300 >/dev/null & echo $!"])
        open(response.removeprefix("child "), "w").write(str(int(pid)))
    if response == "exit":
        os._exit(0)
    if response == "wait":
        time.sleep(60)
    return [1.0]

def act(responses):
    (response,) = responses
    if response == "hang":
        time.sleep(60)
    if response == "crash":
        os._exit(3)
    if response == "raise":
        raise KeyError("no such word")
    if response == "nothing":
        return []
    return [float(len(response))] if response != "nan" else [nan]

def name_process(responses):
    time.sleep(0.2)
    return [os.getpid()]

def read_gold(prompts, records):
    return [len(prompts[0]) + records[0].metadata["gold"]]
"""


@pytest.fixture
def scoring(tmp_path: Path) -> Path:
    file = tmp_path / "scoring.py"
    file.write_text(SOURCE, encoding="utf-8")
    return file


def make_samples(*texts: str) -> list[Sample]:
    record = Record.from_text("Two words", texts).model_copy(update={"meta": '{"gold": 3}'})
    return [Sample(record, response, response.text) for response in record.responses]


def test_a_worker_gets_what_the_signature_takes(scoring: Path) -> None:
    reward = PythonFunction(f"{scoring}:read_gold", workers=1)
    assert reward.score(make_samples("a", "b")) == [12, 12]


def test_every_failure_costs_its_own_sample_and_says_why(scoring: Path, caplog: pytest.LogCaptureFixture) -> None:
    reward = PythonFunction(f"{scoring}:act", workers=2, timeout=1.0)
    scorer = RewardScorer([BoundReward(RewardComponent(name="act"), reward)])
    texts = ("a", "hang", "bb", "crash", "ccc", "raise", "nothing", "nan", "dddd")
    with caplog.at_level(logging.WARNING):
        scores = dict(zip(texts, scorer.score(make_samples(*texts)).flatten().tolist(), strict=True))
    failed = {text for text, score in scores.items() if isnan(score)}
    assert failed == {"hang", "crash", "raise", "nothing", "nan"}
    assert [scores[text] for text in ("a", "bb", "ccc", "dddd")] == [1, 2, 3, 4]
    assert scorer.failures == {"act": 5}
    assert "no score for 5 of 9 samples; first cause: TimeoutError: no score within 1.0 s" in caplog.text


def test_the_causes(scoring: Path) -> None:
    reward = PythonFunction(f"{scoring}:act", workers=1, timeout=1.0)
    causes = [str(one) for one in reward.score(make_samples("hang", "crash", "raise", "nothing"))]
    assert causes[:3] == [
        "no score within 1.0 s",
        "the process that scored it ended with exit code 3",
        "KeyError: 'no such word'",
    ]
    assert causes[3] == "expected 1 score for 1 response, got 0"


def test_a_sample_that_cannot_be_sent_costs_itself_only(scoring: Path) -> None:
    record = Record.from_text("q", ["x"])
    samples = [Sample(record, Response.from_text("r0", "x"), output) for output in (lambda: 1, "ok")]
    failure, score = PythonFunction(f"{scoring}:act", workers=1).score(samples)
    assert isinstance(failure, Exception) and score == 2


def test_calls_run_side_by_side_in_processes_that_stay(scoring: Path) -> None:
    reward = PythonFunction(f"{scoring}:name_process", workers=2)
    first = set(reward.score(make_samples("a", "b")))
    assert len(first) == 2
    assert set(reward.score(make_samples("a", "b", "c", "d"))) == first


def test_a_worker_that_was_killed_while_idle_is_replaced(scoring: Path) -> None:
    reward = PythonFunction(f"{scoring}:name_process", workers=1)
    (process,) = reward.score(make_samples("a"))
    assert not isinstance(process, Exception)
    os.kill(int(process), signal.SIGKILL)
    time.sleep(0.2)
    (other,) = reward.score(make_samples("a"))
    assert not isinstance(other, Exception) and other != process


def test_a_function_of_a_plugin_file_is_found_by_the_workers(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = folder / "plugin_with_scorer.py"
    file.write_text("def one(responses):\n    return [1.0]\n", encoding="utf-8")
    Candidate.from_file(file).load()
    assert PythonFunction("plugin_with_scorer.one", workers=1).score(make_samples("a")) == [1]


def test_a_function_that_a_worker_cannot_import_is_explained(scoring: Path) -> None:
    reward = PythonFunction(f"{scoring}:act", workers=1)
    scoring.unlink()
    with pytest.raises(ConfigError, match=r"rewards\.python\.workers: a worker process ended while it imported"):
        reward.score(make_samples("a"))


def test_a_timeout_needs_workers() -> None:
    with pytest.raises(ConfigError, match=r"timeout: needs workers, e\.g\. workers: 2"):
        validate(PythonFunctionConfig, {"function": "a.b", "timeout": 1}, "rewards")


def test_only_a_function_declared_deterministic_may_be_cached(scoring: Path) -> None:
    assert not PythonFunction(f"{scoring}:act").deterministic
    assert PythonFunction(f"{scoring}:act", deterministic=True).deterministic


# -- limits, and an end for all of a worker's processes


@pytest.mark.parametrize(
    ("response", "cause"),
    [
        ("half a message", "no score within 1.5 s"),
        ("no message", "sent no answer that can be read"),
        ("endless message", "more than 16,777,216 bytes"),
        ("memory", "MemoryError"),
        ("many", "it started more than max_processes, 4"),
    ],
)
def test_a_worker_out_of_bounds_costs_one_sample(scoring: Path, response: str, cause: str) -> None:
    limits = {"max_memory_bytes": 2**28, "max_processes": 4}
    reward = PythonFunction(f"{scoring}:misbehave", workers=1, timeout=1.5, **limits)
    start = time.monotonic()
    failure, score = reward.score(make_samples(response, "fine"))
    assert cause in str(failure) and score == 1
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("end", ["exit", "wait"])
def test_what_a_worker_started_ends_with_it(scoring: Path, tmp_path: Path, end: str) -> None:
    told = tmp_path / "pid"
    PythonFunction(f"{scoring}:misbehave", workers=1, timeout=2.0).score(make_samples(f"child {told}", end))
    assert not is_alive(int(told.read_text()))


RUN = """
import sys
from mmalign import Record, Sample
from mmalign_rewards.python_function import PythonFunction

if __name__ == "__main__":
    record = Record.from_text("Two words", ["child " + sys.argv[2], "wait"])
    samples = [Sample(record, response, response.text) for response in record.responses]
    PythonFunction(sys.argv[1] + ":misbehave", workers=1).score(samples)
"""


def test_what_a_worker_started_ends_with_the_run_however_that_ends(scoring: Path, tmp_path: Path) -> None:
    script, told = tmp_path / "run.py", tmp_path / "pid"
    script.write_text(RUN)
    run = subprocess.Popen([sys.executable, script, scoring, told])
    try:
        assert wait_until(lambda: told.exists() and bool(told.read_text()), 60)
    finally:
        run.kill()
        run.wait()
    assert wait_until(lambda: not is_alive(int(told.read_text())), 15)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return False
