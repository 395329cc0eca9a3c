"""Prompt-side preferences: what the checkers say of every prompt that is made."""

from __future__ import annotations

import logging
from random import Random

import pytest
from transforming import build, compared, pairs_of, rated, transform

from mmalign import ConfigError
from mmalign_transforms.instructions import LIBRARY
from mmalign_transforms.mapl import choose_instructions, tell_apart

TEXTS = ["Paris is the capital of France.", "Is it? Yes!", "no", "Ten good words stand here, and nobody counts them"]


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("text", TEXTS)
def test_an_instruction_is_what_it_says(name: str, text: str) -> None:
    for seed in range(20):
        for fulfil in (True, False):
            made = LIBRARY[name](text, fulfil, Random(seed))
            assert made is None or made.fulfilled(text) == fulfil


@pytest.mark.parametrize("text", TEXTS)
def test_one_side_fulfils_all_and_the_other_breaks_one(text: str) -> None:
    for seed in range(50):
        sides = choose_instructions(text, LIBRARY, 3, Random(seed))
        assert sides is not None
        better, worse = sides
        assert 1 <= len(better) == len(worse) <= 3
        assert all(one.fulfilled(text) for one in better)
        assert not all(one.fulfilled(text) for one in worse)


def test_variants_and_labels() -> None:
    record = compared(rated({TEXTS[0]: 2.0, "bad": 1.0}), ("r0", "r1"))
    (result,) = transform(record, "mapl", instructions=["end_with"], most=1)
    assert [variant.vid for variant in result.variants] == ["r0-better", "r0-worse"]
    assert result.variants[0].prompt[-1].text == "q\n\nEnd with '.'."
    assert result.variants[1].prompt[-1].text in ("q\n\nEnd with '!'.", "q\n\nEnd with '?'.")
    assert result.labels[0] == record.labels[0]
    assert result.labels[1].order == (("r0@r0-better",), ("r0@r0-worse",))
    assert result.pair_indices() == record.pair_indices()


def test_without_a_comparison_every_response_counts() -> None:
    (result,) = transform(rated({"One two.": 1.0, "Three four.": 2.0}), "mapl")
    assert [label.order[0] for label in result.labels] == [("r0@r0-better",), ("r1@r1-better",)]
    assert transform(rated({"One two.": 1.0, "Three four.": 2.0}), "mapl") == [result]
    assert transform(rated({"One two.": 1.0, "Three four.": 2.0}), "mapl", seed=5) != [result]


def test_responses_that_can_break_nothing_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        (result,) = transform(rated({"no": 1.0}), "mapl", instructions=["limit_words"])
    assert result.variants == () and result.labels == ()
    assert "mapl: left out 1 prompt pairs (no instruction that the response fulfils, or breaks)" in caplog.text


def test_instructions_tell_responses_apart() -> None:
    for seed in range(30):
        drawn = tell_apart(TEXTS[0], TEXTS[1], LIBRARY, 3, Random(seed))
        assert 1 <= len(drawn) <= 3
        assert all(one.fulfilled(TEXTS[0]) for one in drawn)
        assert not all(one.fulfilled(TEXTS[1]) for one in drawn)
    assert tell_apart("no", "no", LIBRARY, 3, Random(0)) == []


def test_pairs_come_once_more_under_instructions(caplog: pytest.LogCaptureFixture) -> None:
    record = compared(rated({"Paris.": 2.0, "Paris!": 1.0, "Paris. ": 0.0}), ("r0", "r1"), ("r0", "r2"))
    with caplog.at_level(logging.WARNING):
        same, instructed = transform(record, "mapl", instructions=["end_with"], compare="responses")
    assert same == record
    assert instructed.prompt[-1].text == "q\n\nEnd with '.'."
    assert pairs_of(instructed) == [("Paris.", "Paris!", 1.0)]
    assert "mapl: left out 1 instructed pairs (no instruction tells the responses apart)" in caplog.text
    both = transform(record, "mapl", instructions=["end_with"], compare="both")
    assert both[0] == transform(record, "mapl", instructions=["end_with"])[0] and both[1] == instructed


def test_an_unknown_instruction_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"instructions: unknown 'end_wiht'; did you mean 'end_with'\?"):
        build("mapl", instructions=["end_wiht"])


def test_margins_are_compared_with_and_without_instructions() -> None:
    """The record stays; behind it one with the pair as it was and the same pair under instructions."""
    record = compared(rated({"One two.": 2.0, "One two three!": 1.0}), ("r0", "r1"))
    same, made = transform(record, "mapl", compare="margins", instructions=["end_with"])
    assert same == record
    assert made.prompt == record.prompt and made.variants[0].prompt[-1].text == "q\n\nEnd with '.'."
    assert [(label.order, label.strength) for label in made.labels] == [
        ((("r0",), ("r1",)), 0.0),
        ((("r0@instructed",), ("r1@instructed",)), 1.0),
    ]
    (alone,) = transform(record, "mapl", compare="responses", instructions=["end_with"])[1:]
    assert alone.prompt == made.variants[0].prompt
