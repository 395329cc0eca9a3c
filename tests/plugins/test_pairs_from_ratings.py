"""Preference pairs from ratings."""

from __future__ import annotations

import logging
from random import Random

import pytest
from transforming import compared, pairs_of, rated, transform

from mmalign import DataError, Label, Note, Record, Score
from mmalign_transforms.pairs_from_ratings import propose_pairs

FOUR = {"good": 4.0, "bad": 1.0, "best": 5.0, "poor": 2.0}


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("best_vs_worst", [("best", "bad", 4.0)]),
        ("best_vs_each", [("best", "good", 1.0), ("best", "poor", 3.0), ("best", "bad", 4.0)]),
        ("adjacent", [("best", "good", 1.0), ("good", "poor", 2.0), ("poor", "bad", 1.0)]),
        (
            "all",
            [("best", "good", 1), ("best", "poor", 3), ("best", "bad", 4), ("good", "poor", 2), ("good", "bad", 3)],
        ),
    ],
)
def test_pairs_by_hand(scheme: str, expected: list[tuple[str, str, float]]) -> None:
    """Ratings 5 best, 4 good, 2 poor, 1 bad; the strength of each pair is the difference."""
    (record,) = transform(rated(FOUR), "pairs_from_ratings", pairs=scheme)
    assert pairs_of(record)[: len(expected)] == expected
    assert len(pairs_of(record)) == (6 if scheme == "all" else len(expected))


def test_the_margin_is_exceeded_by_every_pair() -> None:
    (record,) = transform(rated(FOUR), "pairs_from_ratings", pairs="all", margin=2.0)
    assert {strength for _, _, strength in pairs_of(record)} == {3.0, 4.0}


def test_random_pairs_depend_on_the_seed_and_the_id_only() -> None:
    records = [rated(FOUR, f"p{index}") for index in range(60)]

    def choose(records: list[Record], seed: int) -> dict[str, str]:
        pairs = transform(records, "pairs_from_ratings", pairs="best_vs_random", seed=seed)
        return {record.id: pairs_of(record)[0][1] for record in pairs}

    first = choose(records, 0)
    assert set(first.values()) == {"good", "poor", "bad"}
    assert choose(records[::-1][:7], 0) == {id: first[id] for id in [f"p{index}" for index in range(53, 60)]}
    assert choose(records, 1) != first


def test_a_random_loser_is_worse_as_long_as_there_is_one() -> None:
    ratings = {"a": 3.0, "b": 3.0, "c": 1.0}
    assert {propose_pairs(ratings, "best_vs_random", 0.0, Random(seed))[0] for seed in range(20)} == {("a", "c")}


def test_one_rated_response_gives_no_pair(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert transform(rated({"a": 1.0, "b": None}), "pairs_from_ratings") == []
    assert "pairs_from_ratings: left out 1 records (no two ratings differ" in caplog.text


def test_ties_are_dropped_and_counted_or_kept(caplog: pytest.LogCaptureFixture) -> None:
    tied = rated({"a": 2.0, "b": 2.0, "c": 1.0})
    with caplog.at_level(logging.WARNING):
        (record,) = transform(tied, "pairs_from_ratings", pairs="best_vs_each")
    assert pairs_of(record) == [("a", "c", 1.0)]
    assert "left out 1 ties" in caplog.text
    (record,) = transform(tied, "pairs_from_ratings", pairs="best_vs_each", ties="keep")
    assert [label.order for label in record.labels] == [(("r0", "r1"),), (("r0",), ("r2",))]
    assert pairs_of(record) == [("a", "c", 1.0)]


def test_a_vector_counts_by_its_mean() -> None:
    """UltraFeedback rates four aspects: means (4 + 2) / 2 = 3 and (5 + 5) / 2 = 5; a null does not count."""
    scores = [
        Score(item="r0", name="aspects", level="vector", values=(4.0, None, 2.0), keys=("a", "b", "c")),
        Score(item="r1", name="aspects", level="vector", values=(5.0, 5.0), keys=("a", "b")),
    ]
    record = rated({"x": None, "y": None}).model_copy(update={"scores": tuple(scores)})
    (paired,) = transform(record, "pairs_from_ratings", score="aspects")
    assert pairs_of(paired) == [("y", "x", 2.0)]


def test_unpaired_responses_go_with_their_feedback_only() -> None:
    record = rated(FOUR).model_copy(
        update={
            "labels": (Label(kind="unary", order=(("r0",),), strength=1.0),),
            "notes": (Note(kind="critique", text="meh", items=("r3",)), Note(kind="about", text="all")),
        }
    )
    (paired,) = transform(record, "pairs_from_ratings")
    assert [response.rid for response in paired.responses] == ["r0", "r1", "r2"]
    assert {score.item for score in paired.scores} == {"r0", "r1", "r2"}
    assert [note.text for note in paired.notes] == ["all"]
    (whole,) = transform(record, "pairs_from_ratings", unpaired="keep")
    assert whole.responses == record.responses and whole.notes == record.notes


def test_comparisons_that_are_there_are_not_lost_by_mistake(caplog: pytest.LogCaptureFixture) -> None:
    record = compared(rated(FOUR), ("r1", "r3"), annotator="human:1")
    with pytest.raises(DataError, match=r"pairs_from_ratings: record 'p': has a pair label already; say `existing: k"):
        transform(record, "pairs_from_ratings")
    (both,) = transform(record, "pairs_from_ratings", existing="keep")
    assert [label.annotator for label in both.labels] == ["human:1", "rule:rating"]
    with caplog.at_level(logging.WARNING):
        (new,) = transform(record, "pairs_from_ratings", existing="replace")
    assert pairs_of(new) == [("best", "bad", 4.0)]
    assert "left out 1 comparisons (replaced)" in caplog.text


def test_a_misspelt_score_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"record 'p': no response has the score 'overal'; did you mean 'overall'\?"):
        transform(rated(FOUR), "pairs_from_ratings", score="overal")
    with pytest.raises(DataError, match="record 'p': no response is rated; none is known"):
        transform(Record.from_text("q", ["a", "b"], id="p"), "pairs_from_ratings")
