"""Errors and interruptions while one part of a round is scored and the next is sampled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from overlapping import PATIENCE, PROMPTS, Build, collect, score_ones, wait_for_the_end_of_threads, watch_sampling
from scoring_server import Answer, ScoringServer, use

from mmalign import ConfigError, TrainingError, load_run
from mmalign.run import Run


@pytest.fixture
def run(scoring_server: ScoringServer, toy_online: Build, write_config: Callable[..., Path]) -> Run:
    """A run on the toy modality with the server's reward and one that computes in this process."""
    scoring_server.behave = score_ones
    torch.manual_seed(0)
    return load_run(write_config(toy_online(rewards=[use(scoring_server), {"name": "zeros"}])))


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyboardInterrupt()])
def test_an_error_while_sampling_is_raised_at_once_and_scores_no_more(
    run: Run, scoring_server: ScoringServer, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The first part is being scored, the second waits for it, the third cannot be sampled."""
    asked, raised = threading.Event(), threading.Event()

    def answer(payload: dict[str, Any], earlier: int) -> Answer:
        asked.set()
        assert raised.wait(PATIENCE)
        return Answer({"scores": [1.0]})

    def before(call: int) -> None:
        if call == 2:
            assert asked.wait(PATIENCE)
            raise error

    scoring_server.behave = answer
    watch_sampling(run, monkeypatch, before)
    with pytest.raises(type(error)):
        collect(run, parts=3)
    raised.set()
    assert wait_for_the_end_of_threads()
    assert {payload["prompts"][0] for payload in scoring_server.requests} <= {"x", "xx"}, "only the first two prompts"
    assert run.backend.scorer.failures == {"http": 0, "zeros": 0}


def test_an_error_of_a_reward_stops_the_sampling(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def misconfigured(samples: Any) -> Any:
        failed.set()
        raise ConfigError("no such server")

    def before(call: int) -> None:
        assert call == 0 or failed.wait(PATIENCE)

    monkeypatch.setattr(run.backend.scorer._rewards[0]._reward, "score", misconfigured)
    sizes = watch_sampling(run, monkeypatch, before)
    with pytest.raises(ConfigError, match="no such server"):
        collect(run, parts=6)
    assert len(sizes) < 6
    assert wait_for_the_end_of_threads()


def test_a_reward_that_fails_on_everything_stops_the_run(run: Run, scoring_server: ScoringServer) -> None:
    scoring_server.behave = lambda payload, earlier: Answer(status=400)
    with pytest.raises(TrainingError, match=r"rewards\.http: failed on all \d+ samples; first cause: .*HTTP 400"):
        collect(run, parts=3)


def test_a_part_that_fails_alone_stops_nothing(run: Run, scoring_server: ScoringServer) -> None:
    first = PROMPTS[0].prompt_text
    scoring_server.behave = lambda payload, earlier: (
        Answer(status=400) if payload["prompts"] == [first] else Answer({"scores": [1.0]})
    )
    _, rewards = collect(run, parts=6)
    missing = [record.prompt_text == first for record in PROMPTS for _ in range(4)]
    assert rewards[:, 0].isnan().tolist() == missing
