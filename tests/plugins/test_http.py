"""The reward that asks a server: what it sends, how many requests at a time, what it does with answers."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from itertools import pairwise
from math import isnan, nan
from pathlib import Path
from typing import Any

import pytest
from scoring_server import Answer, ScoringServer, score_lengths

import mmalign
from mmalign import ConfigError, Record, Response, Sample
from mmalign.config.components import RewardComponent
from mmalign.config.validation import validate
from mmalign.json_requests import RequestConfig
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.rewards.scorer import BoundReward, RewardScorer
from mmalign_rewards.http import Http, HttpConfig, read_scores

QUICK = {"backoff": 0.01, "retries": 2, "timeout": 5.0}


def make_samples(*texts: str) -> list[Sample]:
    record = Record.from_text("Say it.", texts)
    return [Sample(record, response, response.text) for response in record.responses]


def build(server: ScoringServer, batch_size: int = 16, **requests: Any) -> Http:
    return Http(server.url, batch_size, requests=RequestConfig(**(QUICK | requests)))


def test_texts_are_posted_in_batches_and_scores_come_back_in_order(scoring_server: ScoringServer) -> None:
    scores = build(scoring_server, batch_size=2).score(make_samples("a", "bb", "ccc", "dddd", "eeeee"))
    assert scores == [1, 2, 3, 4, 5]
    assert sorted(scoring_server.requests, key=lambda one: len(one["responses"][0])) == [
        {"prompts": ["Say it."] * 2, "responses": ["a", "bb"]},
        {"prompts": ["Say it."] * 2, "responses": ["ccc", "dddd"]},
        {"prompts": ["Say it."], "responses": ["eeeee"]},
    ]


def test_no_samples_make_no_request(scoring_server: ScoringServer) -> None:
    assert build(scoring_server).score([]) == []
    assert scoring_server.requests == []


@pytest.mark.parametrize("text", ["ähm 漢字", "half \ud83d pair", 'quote " and \\'])
def test_any_text_arrives_whole(scoring_server: ScoringServer, text: str) -> None:
    record = Record.from_text("q", ["x"])
    assert build(scoring_server).score([Sample(record, Response.from_text("r0", "x"), text)]) == [len(text)]
    assert scoring_server.requests[0]["responses"] == [text]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_at_a_time_than_wanted(scoring_server: ScoringServer, concurrency: int) -> None:
    scoring_server.behave = lambda payload, earlier: replace(score_lengths(payload, earlier), delay=0.1)
    texts = ["x" * length for length in range(1, 7)]
    scores = build(scoring_server, batch_size=1, concurrency=concurrency).score(make_samples(*texts))
    assert scores == [1, 2, 3, 4, 5, 6]
    assert scoring_server.most == concurrency


def test_requests_keep_their_distance_under_a_rate_limit(scoring_server: ScoringServer) -> None:
    reward = build(scoring_server, batch_size=1, per_second=10.0)
    reward.score(make_samples("a", "bb"))
    reward.score(make_samples("ccc", "dddd"))
    times = sorted(scoring_server.times)
    # A request may be late, and the one after it in time; together they keep the rate.
    assert times[-1] - times[0] > 0.25
    assert all(later - earlier > 0.03 for earlier, later in pairwise(times))


def test_it_works_where_an_event_loop_runs_already(scoring_server: ScoringServer) -> None:
    async def notebook_cell() -> Any:
        return build(scoring_server).score(make_samples("abc"))

    assert asyncio.run(notebook_cell()) == [3]


# -- answers


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([1, 2], "expected {'scores': [...]}, got [1, 2]"),
        ({"score": [1, 2]}, "expected {'scores': [...]}, got {'score': [1, 2]}"),
        ({"scores": 1}, "expected {'scores': [...]}, got {'scores': 1}"),
        ({"scores": [1]}, "expected 2 scores, got 1"),
        ({"scores": [1, 2, 3]}, "expected 2 scores, got 3"),
    ],
)
def test_an_answer_of_another_form_scores_nothing(answer: Any, message: str) -> None:
    assert [str(score) for score in read_scores(answer, 2)] == [message] * 2


@pytest.mark.parametrize("score", [None, "1", True, [1], float("inf")])
def test_what_is_no_number_costs_one_sample(score: Any) -> None:
    first, second = read_scores({"scores": [score, 2]}, 2)
    assert isinstance(first, Exception) and "expected a finite number as the score" in str(first)
    assert second == 2.0


def test_nan_is_no_score() -> None:
    assert isnan(float(str(read_scores({"scores": [nan]}, 1)[0])))


# -- several scores a response


@pytest.mark.parametrize(
    ("row", "scores"),
    [
        ([1, 0.5], [1.0, 0.5]),
        ({"verbose": 0.5, "helpful": 1, "why": "short"}, [1.0, 0.5]),
        ([1, None], [1.0, nan]),
        ({"helpful": None, "verbose": 2}, [nan, 2.0]),
    ],
)
def test_rows_are_lists_or_objects(row: Any, scores: list[float]) -> None:
    (read,) = read_scores({"scores": [row]}, 1, ["helpful", "verbose"])
    assert read == pytest.approx(scores, nan_ok=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (None, "expected numbers for helpful, verbose, got None"),
        (1.0, "expected numbers for helpful, verbose, got 1.0"),
        ([1], r"expected numbers for helpful, verbose, got \[1\]"),
        ({"helpful": 1}, "expected numbers for helpful, verbose, got {'helpful': 1}"),
        ([1, "2"], "expected a finite number as the score, got '2'"),
        ([True, 2], "expected a finite number as the score, got True"),
    ],
)
def test_a_row_that_is_not_whole_costs_one_sample(row: Any, message: str) -> None:
    failure, scores = read_scores({"scores": [row, [1, 2]]}, 2, ["helpful", "verbose"])
    assert scores == [1, 2]
    assert isinstance(failure, Exception)
    with pytest.raises(type(failure), match=message):
        raise failure


def test_outputs_are_the_dimensions_of_the_reward(scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer({"scores": [[len(one), 1] for one in payload["responses"]]})
    reward = Http(scoring_server.url, outputs=("length", "one"))
    assert reward.dimensions == ("length", "one")
    assert reward.score(make_samples("a", "bb")) == [[1, 1], [2, 1]]


# -- the key


def test_the_key_is_sent_and_told_to_nobody(
    scoring_server: ScoringServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SCORER_KEY", "s3cret")
    answers = {"bad": Answer({"error": "wrong key s3cret"}, status=401), "odd": Answer({"echo": "s3cret"})}
    scoring_server.behave = lambda payload, earlier: (
        answers.get(payload["responses"][0]) or score_lengths(payload, earlier)
    )
    reward = Http(scoring_server.url, 1, api_key_env="SCORER_KEY")
    scorer = RewardScorer([BoundReward(RewardComponent(name="http"), reward)])
    with caplog.at_level(logging.DEBUG):
        assert scorer.score(make_samples("fine", "bad", "odd"))[0].item() == 4
    causes = [str(score) for score in reward.score(make_samples("bad", "odd"))]
    assert [headers["Authorization"] for headers in scoring_server.headers] == ["Bearer s3cret"] * 5
    assert "wrong key ***" in causes[0] and "***" in causes[1]
    assert "s3cret" not in caplog.text + "".join(causes)


def test_a_key_that_is_not_set_is_found_at_once() -> None:
    with pytest.raises(ConfigError, match=r"rewards\.http\.api_key_env: the environment variable 'NOT_SET' is not set"):
        Http("http://localhost:1", api_key_env="NOT_SET")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", r"url: expected http://\.\.\. or https://"),
        ("http://me:pass@localhost/score", "url: holds a password"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(HttpConfig, {"url": url}, "rewards")


def test_an_at_sign_in_the_path_is_no_password() -> None:
    assert validate(HttpConfig, {"url": "http://localhost/@score"}, "rewards").url == "http://localhost/@score"


# -- in a run


def test_a_run_trains_on_with_what_was_scored(
    scoring_server: ScoringServer, toy_online: Any, write_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_even(payload: dict[str, Any], earlier: int) -> Answer:
        (response,) = payload["responses"]
        even = response.count("0") % 2 == 0
        return Answer(status=500) if even else Answer({"scores": [response.count("1")]})

    scoring_server.behave = fail_on_even
    monkeypatch.setenv("SCORER_KEY", "s3cret")
    reward = {"name": "http", "url": scoring_server.url, "batch_size": 1, "api_key_env": "SCORER_KEY"}
    config = toy_online(rewards=[reward | {"normalise": "running", "requests": {"retries": 0}}])
    run = mmalign.train(write_config(config))
    assert run.step == 4
    rows = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert all(0 < row["reward/unscored"] < 1 for row in rows)
    assert run.assembly.scorer.failures["http"] > 0
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [path.name for path in files if b"s3cret" in path.read_bytes()]
