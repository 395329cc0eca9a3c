"""Grades of responses: ratings, win rates of ranks, and what has nothing to be compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmalign import EncodedResponse, Record
from mmalign.contract.batch import Batch, build_batch
from mmalign.data.records import Label, Score
from mmalign_objectives.support.grades import compute_grades, mark_graded


def make_record(name: str, ratings: Sequence[float | None], ranking: Sequence[Sequence[str]] = ()) -> Record:
    record = Record.from_text(name, [f"{name}{index}" for index in range(len(ratings))], id=name)
    scores = [
        Score(item=f"r{index}", name="quality", level="response", value=value) for index, value in enumerate(ratings)
    ]
    labels = [Label(kind="rank", order=tuple(tuple(group) for group in ranking))] if ranking else []
    return record.model_copy(update={"scores": tuple(scores), "labels": tuple(labels)})


def make_batch(*records: Record) -> Batch:
    encoded = [[EncodedResponse({}, steps=1, size=1) for _ in record.responses] for record in records]
    batch = build_batch(records, encoded, targets_only=False)
    values = {name: batch.quantities[name] for name in ("ratings", "ranks", "prompt_index")}
    return batch.with_quantities({"grades": compute_grades(**values)}, {"grades": "N"})


def test_a_grade_is_a_rating_where_there_are_ratings() -> None:
    batch = make_batch(make_record("a", [3.0, None, 1.0], [["r1"], ["r0"], ["r2"]]))
    assert torch.equal(batch.quantities["grades"].isnan(), torch.tensor([False, True, False]))
    assert batch.quantities["grades"][[0, 2]].tolist() == [3.0, 1.0]


def test_a_grade_is_a_win_rate_where_there_are_ranks_only() -> None:
    """Best beats both tied ones and the last; a tied one beats the last and half of its equal: (1 + 1/2) / 3."""
    batch = make_batch(make_record("a", [None] * 4, [["r2"], ["r0", "r3"], ["r1"]]))
    assert batch.quantities["grades"].tolist() == [0.5, 0.0, 1.0, 0.5]


def test_a_single_grade_is_none_and_prompts_do_not_mix() -> None:
    batch = make_batch(make_record("a", [5.0, None]), make_record("b", [1.0, 2.0]), make_record("c", [None, None]))
    assert mark_graded(batch.quantities["grades"]).tolist() == [False, False, True, True, False, False]
    assert batch.quantities["grades"][2:4].tolist() == [1.0, 2.0]
