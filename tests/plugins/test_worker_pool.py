"""Python functions in worker processes: what is slow, hangs or crashes costs one sample, and the pool goes on."""

from __future__ import annotations

import logging
import os
import signal
import time
from math import isnan
from pathlib import Path

import pytest

from mmalign import ConfigError, Record, Response, Sample
from mmalign.config.components import RewardComponent
from mmalign.config.validation import validate
from mmalign.plugin_discovery import Candidate
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign_rewards.python_function import PythonFunction, PythonFunctionConfig

SOURCE = """
import os, time
from math import nan

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
    assert causes[3].startswith("ValueError: not enough values to unpack")


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
