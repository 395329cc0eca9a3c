"""Filters on responses and pairs: what stays, what goes with it, and what is said."""

from __future__ import annotations

import logging

import pytest
from transforming import build, compared, pairs_of, rated, transform

from mmalign import ConfigError, DataError, Label, Record, Score

RATED = rated({"one": 1.0, "one two": 2.0, "one two three": 4.0})
PAIRED = compared(RATED, ("r2", "r0"), ("r2", "r1"), ("r1", "r0"))


def texts(record: Record, **rules: object) -> list[str]:
    (left,) = transform(record, "filter", **rules)
    return [response.text for response in left.responses]


def test_lengths_in_words_and_characters() -> None:
    assert texts(RATED, length={"least": 2}) == ["one two", "one two three"]
    assert texts(RATED, length={"least": 2, "most": 2}) == ["one two"]
    assert texts(RATED, length={"most": 7, "unit": "characters"}) == ["one", "one two"]


def test_models() -> None:
    responses = [one.model_copy(update={"model": model}) for one, model in zip(RATED.responses, "aab", strict=True)]
    record = RATED.model_copy(update={"responses": tuple(responses)})
    assert texts(record, models=["b"]) == ["one two three"]
    assert texts(record, not_models=["b"]) == ["one", "one two"]


def test_unrated_responses() -> None:
    assert texts(rated({"a": 1.0, "b": None}), rated="overall") == ["a"]


def test_a_response_goes_with_its_pairs() -> None:
    (left,) = transform(PAIRED, "filter", length={"least": 2})
    assert pairs_of(left)[0][:2] == ("one two three", "one two")
    assert [score.item for score in left.scores] == ["r1", "r2"]


def test_gaps_are_the_strength_or_the_ratings() -> None:
    """By the ratings 4 - 1, 4 - 2, 2 - 1; the labels of the second record say 1 for all."""
    (left,) = transform(PAIRED, "filter", gap={"least": 2.0})
    assert [pair[:2] for pair in pairs_of(left)] == [("one two three", "one"), ("one two three", "one two")]
    (left,) = transform(PAIRED, "filter", gap={"most": 1.0})
    assert [pair[:2] for pair in pairs_of(left)] == [("one two", "one")]
    strong = compared(RATED, ("r2", "r0"), ("r2", "r1"), strength=1.0)
    assert transform(strong, "filter", gap={"least": 2.0}) == []
    (left,) = transform(strong, "filter", gap={"least": 3.0, "score": "overall"})
    assert [pair[:2] for pair in pairs_of(left)] == [("one two three", "one")]


def test_a_record_goes_with_its_last_response_or_pair_but_not_without_one() -> None:
    prompt = Record.from_text("q", id="prompt")
    kept = transform([prompt, PAIRED, RATED], "filter", gap={"least": 9.0})
    assert [record.labels for record in kept] == [(), ()]
    assert transform([prompt, PAIRED, RATED], "filter", length={"least": 9}) == [prompt]


def test_what_goes_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        transform(PAIRED, "filter", length={"least": 2}, gap={"least": 9.0})
    expected = "filter: left out 1 responses, 2 labels (of those responses), 1 pairs (gap), 1 records (nothing left"
    assert expected in caplog.text


def test_what_cannot_be_measured_is_an_error() -> None:
    unrated = compared(Record.from_text("q", ["a", "b"], id="u"), ("r0", "r1"))
    with pytest.raises(DataError, match="filter: record 'u': no response is rated"):
        transform(unrated, "filter", gap={"least": 1.0})
    half = compared(rated({"a": 1.0, "b": None}), ("r0", "r1"))
    with pytest.raises(DataError, match="filter: record 'p': response 'r1' of a pair lacks the score 'overall'"):
        transform(half, "filter", gap={"score": "overall"})
    ranking = RATED.model_copy(update={"labels": (Label(kind="rank", order=(("r2",), ("r1",), ("r0",))),)})
    with pytest.raises(DataError, match="record 'p': gap: a label compares more than two responses; make pairs"):
        transform(ranking, "filter", gap={"least": 1.0})


def test_rankings_lose_the_responses_that_go() -> None:
    ranking = RATED.model_copy(update={"labels": (Label(kind="rank", order=(("r2",), ("r1", "r0"))),)})
    (left,) = transform(ranking, "filter", length={"least": 2})
    assert left.labels[0].order == (("r2",), ("r1",))


def test_scores_of_variants_go_with_their_response() -> None:
    score = Score(item="r0@v", name="s", level="response", value=1.0)
    record = RATED.model_copy(update={"scores": (*RATED.scores, score)})
    assert {one.item for one in next(iter(build("filter", length={"least": 2}).apply([record]))).scores} == {"r1", "r2"}


def test_a_filter_without_a_rule_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="expected at least one of length, models, not_models, gap and rated"):
        build("filter")
    with pytest.raises(ConfigError, match=r"transforms\[0\].length.leest: unknown key 'leest'; did you mean 'least'"):
        build("filter", length={"leest": 2})
