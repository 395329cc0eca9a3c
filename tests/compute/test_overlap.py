"""Scoring one part of a round while the next is sampled: the order of events, and that nothing else is different."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from overlapping import PATIENCE, PROMPTS, Build, collect, score_ones, wait_for_the_end_of_threads, watch_sampling
from scoring_server import Answer, ScoringServer, use

import mmalign
from mmalign import Engine, Generated, load_run
from mmalign.compute.backend import Backend
from mmalign.compute.overlap import BackgroundThread
from mmalign.monitoring.metrics_log import read_metrics
from mmalign.run import Run


@pytest.fixture
def run(scoring_server: ScoringServer, toy_online: Build, write_config: Callable[..., Path]) -> Run:
    """A run on the toy modality with the server's reward and one that computes in this process."""
    scoring_server.behave = score_ones
    torch.manual_seed(0)
    return load_run(write_config(toy_online(rewards=[use(scoring_server), {"name": "zeros"}])))


def test_a_part_is_scored_while_the_next_is_sampled(
    run: Run, scoring_server: ScoringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling waits for the request about the part before it, whose answer waits for that sampling."""
    asked, sampling = threading.Event(), threading.Event()

    def answer(payload: dict[str, Any], earlier: int) -> Answer:
        asked.set()
        assert sampling.wait(PATIENCE)
        return Answer({"scores": [1.0]})

    def before(call: int) -> None:
        if call == 1:
            assert asked.wait(PATIENCE), "the first part is not scored while the second is sampled"
            sampling.set()

    scoring_server.behave = answer
    sizes = watch_sampling(run, monkeypatch, before)
    _, rewards = collect(run, parts=2)
    assert sizes == [3, 3]
    assert rewards[:, 0].tolist() == [1.0] * 24


def test_rewards_that_may_not_run_in_the_background_wait_for_the_last_part(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    watch_sampling(run, monkeypatch, lambda call: events.append("sample"))
    zeros = run.backend.scorer._rewards[1]
    assert not zeros.background
    score = zeros._reward.score

    def watched(samples: Any) -> Any:
        events.append(f"score in {threading.current_thread().name}")
        return score(samples)

    monkeypatch.setattr(zeros._reward, "score", watched)
    collect(run, parts=3)
    assert events == ["sample"] * 3 + ["score in MainThread"]


# -- nothing else is different


def test_rollouts_rewards_and_failures_do_not_depend_on_the_parts(run: Run) -> None:
    expected, rewards = collect(run, parts=1)
    failed = run.backend.scorer.failures["http"]
    assert failed > 0
    for number, parts in enumerate((2, 3, 6, 100), start=2):
        rollouts, again = collect(run, parts=parts)
        assert [one.record for one in rollouts] == [one.record for one in expected]
        assert torch.equal(again.nan_to_num(-1), rewards.nan_to_num(-1))
        assert run.backend.scorer.failures == {"http": number * failed, "zeros": 0}


def test_equal_samples_of_several_parts_are_scored_once(run: Run, scoring_server: ScoringServer) -> None:
    samples = {
        (response.text, rollout.record.id)
        for rollout in collect(run, parts=6)[0]
        for response in rollout.record.responses
    }
    assert len(scoring_server.requests) == len(samples)
    (reward, *_) = run.backend.scorer._rewards
    scoring = run.backend.scorer.begin()
    sample = mmalign.Sample(PROMPTS[0], mmalign.Response.from_text("r0", "111"), "111")
    first, second = scoring.add([sample]), scoring.add([sample])
    assert len(first) == 1 and second == {}
    before = len(scoring_server.requests)
    scoring.score_early(first)
    scoring.score_early(second)
    assert scoring.finish()[:, 0].tolist() == [3, 3]
    assert len(scoring_server.requests) == before + 1
    assert reward.failures.total == run.backend.scorer.failures["http"]


def test_a_run_is_the_same_whatever_overlaps(
    scoring_server: ScoringServer, toy_online: Build, write_config: Callable[..., Path], tmp_path: Path, tables: Any
) -> None:
    """In one go without overlap; with it; and stopped without it and resumed with it."""
    scoring_server.behave = score_ones
    rewards = [use(scoring_server, normalise="running"), {"name": "zeros", "constraint": {"at_least": 0.5}}]
    config = toy_online(rewards=rewards)

    def write(name: str) -> Path:
        return write_config(config | {"output": str(tmp_path / name)}, f"{name}.yaml")

    whole = mmalign.train(write("whole"))
    overlapped = mmalign.train(write("overlapped"), {"train.overlap_parts": 3})
    mmalign.train(write("halves"), {"train.steps": 2})
    halves = mmalign.train(write("halves"), {"train.overlap_parts": 2}, resume=True)
    assert tables(whole) == tables(overlapped) == tables(halves)
    assert whole.state()["rewards"] == overlapped.state()["rewards"] == halves.state()["rewards"]
    logged = [
        [row for row in read_metrics(tmp_path / name) if row["kind"] == "train"]
        for name in ("whole", "overlapped", "halves")
    ]
    for rows in zip(*logged, strict=True):
        kept = [{key: value for key, value in row.items() if key.startswith(("reward", "loss"))} for row in rows]
        assert kept[0] and kept[0] == kept[1] == kept[2]
    assert whole.backend.scorer.failures == overlapped.backend.scorer.failures


class Forgetful(Engine):
    """Samples in this process, and does not tell log-probs."""

    def prompts_per_draw(self, modality: Any, count: int) -> int | None:
        return modality.prompts_per_draw(count)

    def generate(self, modality: Any, network: Any, records: Any, decoding: Any, count: int) -> list[list[Generated]]:
        groups = modality.generate(network, records, decoding, count)
        return [[replace(one, behaviour_logps=None) for one in group] for group in groups]


@pytest.mark.parametrize("told", [True, False])
def test_a_language_model_samples_the_same_in_parts(
    told: bool,
    tiny_text_model: Path,
    toy_online: Build,
    write_config: Callable[..., Path],
    write_records: Callable[..., Path],
    scoring_server: ScoringServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parts end where a batch of sequences ends, and log-probs that are missing are computed all at once."""
    prompts = write_records("prompts.jsonl", [{"prompt": f"Say {'it ' * n}"} for n in range(1, 7)])
    config = toy_online(
        modality={"name": "text", "model": str(tiny_text_model), "generation_batch_size": 4},
        data={"train": {"path": str(prompts)}},
        collector={"name": "group", "group_size": 2},
        rewards=use(scoring_server, batch_size=16),
    )
    run = load_run(write_config(config))
    if not told:
        object.__setattr__(run.assembly, "engine", Forgetful())
    scored: list[int] = []
    policy_logps = Backend.policy_logps

    def watched(backend: Backend, responses: Any) -> Any:
        scored.append(len(responses))
        return policy_logps(backend, responses)

    monkeypatch.setattr(Backend, "policy_logps", watched)
    expected, _ = collect(run, parts=1)
    rollouts, _ = collect(run, parts=2)
    assert [one.record for one in rollouts] == [one.record for one in expected]
    for one, other in zip(rollouts, expected, strict=True):
        for mine, theirs in zip(one.responses, other.responses, strict=True):
            assert torch.equal(mine.behaviour_logps, theirs.behaviour_logps)
            assert mine.rescored == (not told)
    assert scored == ([] if told else [12, 12])


def test_calls_are_made_in_order_by_one_thread() -> None:
    made: list[tuple[int, str]] = []
    with BackgroundThread() as background:
        for number in range(5):
            background.submit(lambda number=number: made.append((number, threading.current_thread().name)))
        background.wait()
    assert made == [(number, "mmalign-rewards") for number in range(5)]
    assert wait_for_the_end_of_threads()
