"""Feedback from sampling: scores of sampled responses, and pairs of the best against the worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from fixed_scorer import fix_scores

from mmalign import Collector, Generate, Record, Rollout, TrainingError, load_run
from mmalign.run import Run
from mmalign.training.feedback import sample_records

PROMPTS = [Record.from_text("x" * length, id=str(length)) for length in range(1, 6)]


@pytest.fixture
def scored_run(toy_online: Callable[..., dict[str, Any]], write_config: Callable[..., Path]) -> Run:
    torch.manual_seed(0)
    return load_run(write_config(toy_online(rewards=[{"name": "zeros", "weight": 2.0}])))


def test_every_prompt_keeps_its_place_and_gets_its_responses(scored_run: Run) -> None:
    records = list(sample_records(scored_run, PROMPTS, count=3, chunk=2))
    assert [record.id for record in records] == ["1", "2", "3", "4", "5"]
    assert all([one.rid for one in record.responses] == ["r0", "r1", "r2"] for record in records)
    assert {one.model for record in records for one in record.responses} == {"toy"}


def test_scores_are_those_of_the_response_they_name(scored_run: Run) -> None:
    for record in sample_records(scored_run, PROMPTS, count=3, chunk=2):
        shares = {one.rid: one.text.count("0") / 6 for one in record.responses}
        found = {(score.item, score.name): score.value for score in record.scores}
        assert found == pytest.approx(
            {(rid, "zeros"): share for rid, share in shares.items()}
            | {(rid, "reward"): 2 * share for rid, share in shares.items()},
            abs=1e-4,
        )


def test_records_that_are_written_read_back(scored_run: Run) -> None:
    for record in sample_records(scored_run, PROMPTS, count=4, pairs=2):
        assert Record.from_json(record.to_json()) == record


def test_pairs_are_best_against_worst_then_inwards(scored_run: Run) -> None:
    fix_scores(scored_run, 0.25, 1.0, 0.5, 0.0)
    (record,) = sample_records(scored_run, PROMPTS[:1], count=4, pairs=2)
    assert [(label.order, label.strength) for label in record.labels] == [
        ((("r1",), ("r3",)), 1.0),
        ((("r2",), ("r0",)), 0.25),
    ]


@pytest.mark.parametrize(
    ("scores", "pairs", "expected"),
    [
        ((0.5, 0.5, 0.5, 0.5), 2, []),
        ((1.0, nan, nan, 0.0), 2, [("r0", "r3")]),
        ((1.0, nan, nan, nan), 2, []),
        ((1.0, 0.0, 0.5, 0.5), 9, [("r0", "r1")]),
        ((1.0, 0.0, 0.5, 0.25), 0, []),
    ],
)
def test_responses_without_a_difference_or_a_score_make_no_pair(
    scored_run: Run, scores: tuple[float, ...], pairs: int, expected: list[tuple[str, str]]
) -> None:
    fix_scores(scored_run, *scores)
    records = sample_records(scored_run, PROMPTS[:1], count=4, pairs=pairs)
    labels = [label for record in records for label in record.labels]
    assert [(label.order[0][0], label.order[1][0]) for label in labels] == expected


def test_a_prompt_without_a_pair_is_left_out_of_preference_data(scored_run: Run) -> None:
    fix_scores(scored_run, 1.0, 1.0, 1.0, 1.0)
    assert list(sample_records(scored_run, PROMPTS[:1], count=4, pairs=2)) == []


def test_unpaired_responses_are_left_out_of_preference_data(scored_run: Run) -> None:
    fix_scores(scored_run, 1.0, 0.5, 0.0, 0.5)
    (record,) = sample_records(scored_run, PROMPTS[:1], count=4, pairs=1)
    assert [one.rid for one in record.responses] == ["r0", "r2"]
    assert {score.item for score in record.scores} == {"r0", "r2"}


def test_a_response_without_a_score_stays_without(scored_run: Run) -> None:
    fix_scores(scored_run, 1.0, nan)
    (record,) = sample_records(scored_run, PROMPTS[:1], count=2)
    assert len(record.responses) == 2
    assert {score.item for score in record.scores} == {"r0"}


def test_equal_texts_are_never_preferred_to_each_other(
    toy_online: Callable[..., dict[str, Any]], write_config: Callable[..., Path]
) -> None:
    # One step of a likely digit: all eight responses are the same.
    run = load_run(write_config(toy_online(decoding={"name": "sample", "max_steps": 1, "temperature": 0.01})))
    (unpaired,) = sample_records(run, PROMPTS[:1], count=8)
    assert len({one.text for one in unpaired.responses}) == 1
    fix_scores(run, *map(float, range(8)))
    assert list(sample_records(run, PROMPTS[:1], count=8, pairs=4)) == []


def test_without_rewards_responses_are_not_scored_and_cannot_be_paired(
    toy_config: Callable[..., dict[str, Any]], write_config: Callable[..., Path]
) -> None:
    run = load_run(write_config(toy_config()))
    (record,) = sample_records(run, PROMPTS[:1], count=2)
    assert len(record.responses) == 2 and record.scores == ()
    with pytest.raises(TrainingError, match="no rewards are configured"):
        next(sample_records(run, PROMPTS[:1], count=2, pairs=1))


def test_a_collector_may_sample_instead(scored_run: Run) -> None:
    """Groups of other sizes than `count`, scored one by one."""

    class Uneven(Collector):
        def collect(self, prompts: Sequence[Record], generate: Generate) -> list[Rollout]:
            sizes = [1 + len(prompt.prompt_text) % 3 for prompt in prompts]
            return [
                Rollout.build(prompt, generate([prompt], size)[0]) for prompt, size in zip(prompts, sizes, strict=True)
            ]

    records = list(sample_records(scored_run, PROMPTS, count=7, chunk=2, collector=Uneven()))
    assert [len(record.responses) for record in records] == [2, 3, 1, 2, 3]
    for record in records:
        shares = {one.rid: round(one.text.count("0") / 6, 4) for one in record.responses}
        assert {score.item: score.value for score in record.scores if score.name == "zeros"} == pytest.approx(shares)
