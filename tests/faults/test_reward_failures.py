"""Scorers that fail in every way we know: what was injected, what came out, and that nothing else was lost.

Four samples are scored, one of them with the failure. The table in `docs/rewards.md` is what these tests measured;
write it anew with `MMALIGN_WRITE_DOCS=1 python -m pytest tests/faults/test_reward_failures.py`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from scoring_server import Answer, ScoringServer, score_lengths

from mmalign import Record, Reward, Sample, TrainingError
from mmalign.config.components import RewardComponent
from mmalign.json_requests import RequestConfig
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign_rewards.http import Http
from mmalign_rewards.judge import Judge
from mmalign_rewards.python_function import PythonFunction

PAGE = Path(__file__).parents[2] / "docs" / "rewards.md"
REQUESTS = RequestConfig(retries=2, backoff=0.01, timeout=1.0)
TEXTS = ("a", "bb", "bad", "dddd")

FUNCTION = """
import os, time

def act(responses):
    for response in responses:
        if response == "bad":
            {action}
    return [float(len(response)) for response in responses]
"""


class Row(NamedTuple):
    """One line of the table."""

    reward: str
    injected: str
    requests: int | None
    outcome: str
    cause: str


def chat(payload: dict[str, Any], text: str) -> Answer:
    """A judge's answer: the length of the response, or `text` about the bad one."""
    response = payload["messages"][0]["content"]
    content = text if response == "bad" else f"Score: {len(response)}"
    return Answer({"choices": [{"message": {"content": content}}]})


def on_bad(answer: Answer, *, times: int = 1000) -> Callable[[dict[str, Any], int], Answer]:
    """Answers so to the first requests for the bad sample, else with scores."""

    def behave(payload: dict[str, Any], earlier: int) -> Answer:
        if payload["responses"] == ["bad"] and earlier < times:
            return answer
        return score_lengths(payload, earlier)

    return behave


HTTP = {
    "none": on_bad(Answer(), times=0),
    "HTTP 503, twice": on_bad(Answer(status=503), times=2),
    "HTTP 503, always": on_bad(Answer("busy", status=503)),
    "HTTP 429 with Retry-After, once": on_bad(Answer(status=429, headers={"Retry-After": "0.2"}), times=1),
    "HTTP 400": on_bad(Answer("too long", status=400)),
    "answer too late, once": on_bad(Answer(delay=1.5), times=1),
    "answer too late, always": on_bad(Answer(delay=1.5)),
    "connection dropped, once": on_bad(Answer(drop=True), times=1),
    "connection dropped, always": on_bad(Answer(drop=True)),
    "a web page instead of JSON": on_bad(Answer(b"<html>Gateway</html>")),
    "bytes that are no text": on_bad(Answer(b"\x00\x01\x02")),
    "another JSON object": on_bad(Answer({"error": "no such model"})),
    "too few scores": on_bad(Answer({"scores": []})),
    "too many scores": on_bad(Answer({"scores": [1, 2]})),
    "a null score": on_bad(Answer({"scores": [None]})),
    "a NaN score": on_bad(Answer({"scores": [nan]})),
    "an infinite score": on_bad(Answer({"scores": [float("inf")]})),
    "a score in quotes": on_bad(Answer({"scores": ["0.5"]})),
    "HTTP 503 to everything": lambda payload, earlier: Answer("busy", status=503),
}
TWO = {"one of two scores is null": [3, None], "one of two scores is missing": [3]}
JUDGE = {
    "a judge that gives no number": "I would rather not say.",
    "a judge that says nothing": None,
    "a judge that gives a range": "Score: 2-3",
    "a judge whose reasoning is cut off": "<think>At first sight score: 2, but",
    "a judge that takes it back": "Score: 2\nNo, make that 3.",
}
PYTHON = {
    "an exception": ('raise KeyError("word")', {}),
    "NaN": ('return [float("nan")]', {"workers": 2}),
    "an exception in a worker": ('raise KeyError("word")', {"workers": 2}),
    "a worker that hangs": ("time.sleep(60)", {"workers": 2, "timeout": 1.5}),
    "a worker that dies": ("os._exit(1)", {"workers": 2}),
    "a worker that wants too much memory": ("bytearray(2**29)", {"workers": 2, "max_memory_bytes": 2**28}),
    "a worker that starts too much": (
        "[__import__('subprocess').Popen(['sleep', '60']) for _ in range(9)]; time.sleep(60)",
        {"workers": 2, "max_processes": 4},
    ),
}


def measure(reward: Reward, caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    """Scores the four samples; returns the outcome and the first cause that was told."""
    record = Record.from_text("Say it.", TEXTS)
    scorer = RewardScorer([BoundReward(RewardComponent(name="reward"), reward)])
    try:
        with caplog.at_level(logging.WARNING):
            scores = scorer.score([Sample(record, response, response.text) for response in record.responses])
    except TrainingError as error:
        return "the run stops", shorten(str(error).partition("first cause: ")[2])
    values: Sequence[float] = scores.flatten().tolist()
    assert [values[0], values[1], values[3]] == [1, 2, 4], "a sample without a failure lost its score"
    assert isnan(values[2]) or values[2] == 3
    assert scorer.failures == {"reward": int(isnan(values[2]))}
    cause = re.search("first cause: (.*); further", caplog.text)
    assert bool(cause) == isnan(values[2]), "a failure is told, and nothing else"
    return "3 scores, 1 NaN" if isnan(values[2]) else "4 scores", shorten(cause[1]) if cause else ""


def shorten(cause: str) -> str:
    """Leaves out what depends on the version of a library, and the folders of files."""
    cause = re.sub(r"\(/\S+/(\w+\.py, line)", r"(\1", cause)
    return re.sub(r"(no connection): .*?(?= \(tried|$)", r"\1", cause).removeprefix("RequestFailed: ")


def expect(row: Row) -> None:
    """Compares a measured row with the one in the documentation, or writes it there."""
    first = f"| {row.reward} | {row.injected} | "
    line = f"{first}{'' if row.requests is None else row.requests} | {row.outcome} | {row.cause and f'`{row.cause}`'} |"
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    if os.environ.get("MMALIGN_WRITE_DOCS"):
        places = [index for index, old in enumerate(lines) if old.startswith(first)]
        lines = [line if index in places else old for index, old in enumerate(lines)] + [line] * (not places)
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert line in lines


@pytest.mark.parametrize("injected", HTTP)
def test_a_failing_server(injected: str, scoring_server: ScoringServer, caplog: pytest.LogCaptureFixture) -> None:
    scoring_server.behave = HTTP[injected]
    outcome, cause = measure(Http(scoring_server.url, batch_size=1, requests=REQUESTS), caplog)
    expect(Row("http", injected, len(scoring_server.requests), outcome, cause))


def test_a_server_that_is_not_there(scoring_server: ScoringServer, caplog: pytest.LogCaptureFixture) -> None:
    scoring_server.close()
    outcome, cause = measure(Http(scoring_server.url, batch_size=1, requests=REQUESTS), caplog)
    expect(Row("http", "no server", 0, outcome, cause))


@pytest.mark.parametrize("injected", TWO)
def test_a_failing_server_of_two_scores(
    injected: str, scoring_server: ScoringServer, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(payload: dict[str, Any], earlier: int) -> Answer:
        (response,) = payload["responses"]
        return Answer({"scores": [TWO[injected] if response == "bad" else [len(response), 0]]})

    scoring_server.behave = behave
    reward = Http(scoring_server.url, batch_size=1, requests=REQUESTS, outputs=("length", "none"))
    scorer = RewardScorer([BoundReward(RewardComponent(name="reward"), reward)])
    record = Record.from_text("Say it.", TEXTS)
    with caplog.at_level(logging.WARNING):
        scores = scorer.score([Sample(record, response, response.text) for response in record.responses])
    assert scores[[0, 1, 3]].tolist() == [[1, 0], [2, 0], [4, 0]], "a sample without a failure lost its scores"
    assert scorer.failures == {"reward": 1}
    cause = re.search("first cause: (.*); further", caplog.text)
    assert cause is not None
    lost = int(scores.isnan().sum())
    expect(Row("http", injected, len(scoring_server.requests), f"{8 - lost} scores, {lost} NaN", shorten(cause[1])))


@pytest.mark.parametrize("injected", JUDGE)
def test_a_failing_judge(injected: str, scoring_server: ScoringServer, caplog: pytest.LogCaptureFixture) -> None:
    scoring_server.behave = lambda payload, earlier: chat(payload, JUDGE[injected])
    reward = Judge(scoring_server.url, "wise-1", "{response}", requests=REQUESTS)
    outcome, cause = measure(reward, caplog)
    expect(Row("judge", injected, len(scoring_server.requests), outcome, cause))


@pytest.mark.parametrize("injected", PYTHON)
def test_a_failing_function(injected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    action, keys = PYTHON[injected]
    file = tmp_path / "scoring.py"
    file.write_text(FUNCTION.format(action=action), encoding="utf-8")
    outcome, cause = measure(PythonFunction(f"{file}:act", **keys), caplog)
    expect(Row("python", injected, None, outcome, cause))


def test_every_row_of_the_table_is_measured() -> None:
    rows = re.findall(r"^\| (?:http|judge|python) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows == [*HTTP, "no server", *TWO, *JUDGE, *PYTHON]
