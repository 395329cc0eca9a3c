"""Removal of key content: which phrases matter, and which levels come of it."""

from __future__ import annotations

import logging

import pytest
from transforming import compared, rated, transform

from mmalign import DataError, Message, Part
from mmalign_transforms.keywords import rank_phrases, remove_phrases
from mmalign_transforms.spo_degree import degrade

TEXT = "The red sports car is fast. An old bicycle is slow, and the garden is green."


def test_phrases_by_hand() -> None:
    """Degrees over frequencies: red (3+1)/2 = 2, sports 3, car (3+1)/2 = 2, fast 1: the phrases score 7, 2, 2, 1."""
    assert rank_phrases("The red sports car is fast, and the car is red.") == ["red sports car", "car", "red", "fast"]


def test_a_stop_word_a_mark_or_a_line_break_parts_phrases() -> None:
    assert set(rank_phrases("blue sky and sea; sun\nmoon isn't far-off")) == {
        "blue sky",
        "sea",
        "sun",
        "moon isn't far-off",
    }
    assert rank_phrases("It is the.") == []


def test_whole_words_are_removed() -> None:
    assert remove_phrases("A car, a carpet; the car.", ["car"]) == "A, a carpet; the."


def test_shares_grow() -> None:
    assert degrade(TEXT, 0.0) == TEXT
    assert degrade(TEXT, 0.3) == "The is fast. An is slow, and the garden is green."
    assert degrade(TEXT, 1.0) == "The is. An is, and the is."


def test_levels_are_scores_of_new_responses() -> None:
    record = compared(rated({TEXT: 2.0, "bad": 1.0}), ("r0", "r1"))
    (result,) = transform(record, "spo_degree", levels=3)
    assert [response.rid for response in result.responses] == ["r0", "r1", "r0-1", "r0-2"]
    levels = {score.item: score.values for score in result.scores if score.name == "removal_level"}
    assert levels == {"r0": (0.0,), "r0-1": (1.0,), "r0-2": (2.0,)}
    lengths = [len(response.text) for response in result.responses if response.rid in levels]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == 3


def test_other_objectives_do_not_see_the_new_responses() -> None:
    record = compared(rated({TEXT: 2.0, "bad": 1.0}), ("r0", "r1"))
    (result,) = transform(record, "spo_degree")
    assert result.pair_indices() == record.pair_indices()
    assert result.targets() == [True, False, False, False]
    assert result.ratings()[:2] == [2.0, 1.0] and str(result.ratings()[2]) == "nan"


def test_one_level_is_the_response_itself() -> None:
    record = compared(rated({TEXT: 2.0, "bad": 1.0}), ("r0", "r1"))
    (result,) = transform(record, "spo_degree", levels=1)
    assert result.responses == record.responses
    assert [score.values for score in result.scores if score.name == "removal_level"] == [(0.0,)]


def test_texts_with_too_few_phrases_have_fewer_levels(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (result,) = transform(rated({"The car is fast.": 1.0}), "spo_degree", levels=5, of="all")
    assert [response.text for response in result.responses] == ["The car is fast.", "The is fast.", "The is."]
    assert "spo_degree: left out 2 degraded versions (too few phrases to differ)" in caplog.text


def test_data_are_degraded_once() -> None:
    (once,) = transform(compared(rated({TEXT: 2.0, "bad": 1.0}), ("r0", "r1")), "spo_degree")
    with pytest.raises(DataError, match="spo_degree: record 'p': has a response 'r0-1' already"):
        transform(once, "spo_degree")


def test_what_is_no_text_is_refused() -> None:
    record = compared(rated({"a": 2.0, "b": 1.0}), ("r0", "r1"))
    turn = Message(role="assistant", content=(Part(type="text", text="b"),))
    response = record.responses[0].model_copy(update={"messages": (turn, turn)})
    with pytest.raises(DataError, match="spo_degree: record 'p': response 'r0' is not one message of text"):
        transform(record.model_copy(update={"responses": (response, record.responses[1])}), "spo_degree")
