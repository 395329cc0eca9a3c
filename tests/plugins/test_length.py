"""The length reward on numbers derived by hand."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mmalign import Record, Sample
from mmalign_rewards.length import Length, LengthConfig


def make_sample(text: str, steps: int | None = None) -> Sample:
    record = Record.from_text("Write.", [text])
    return Sample(record, record.responses[0], text, steps)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one two three four", 0.0), ("one two", -0.5), ("1 2 3 4 5 6 7 8", -1.0), ("", -1.0), ("word " * 12, -2.0)],
)
def test_a_target_penalises_both_sides_by_the_fraction_missed(text: str, expected: float) -> None:
    assert Length(target=4).score([make_sample(text)]) == [expected]


@pytest.mark.parametrize(("text", "expected"), [("", 0.0), ("one two three four", 0.0), ("1 2 3 4 5 6", -0.5)])
def test_a_maximum_penalises_only_what_is_above(text: str, expected: float) -> None:
    assert Length(target=4, mode="maximum").score([make_sample(text)]) == [expected]


@pytest.mark.parametrize(("unit", "length"), [("words", 2), ("characters", 9), ("steps", 5)])
def test_units(unit: Any, length: int) -> None:
    # "née  Ωmeg" has 2 words, 9 code points (11 bytes in UTF-8), and was generated in 5 steps.
    assert Length(target=10, unit=unit).score([make_sample("née  Ωmeg", steps=5)]) == [(length - 10) / 10]


def test_steps_need_an_encoded_response() -> None:
    with pytest.raises(ValueError, match="was not encoded"):
        Length(target=4, unit="steps").score([make_sample("a")])


def test_steps_of_an_output_that_is_no_text_can_be_counted() -> None:
    record = Record.from_text("Draw.", ["x"])
    sample = Sample(record, record.responses[0], object(), steps=20)
    assert Length(target=10, unit="steps").score([sample]) == [-1.0]
    with pytest.raises(TypeError, match="decodes to object"):
        Length(target=10).score([sample])


@pytest.mark.parametrize("wrong", [{}, {"target": 0}, {"target": 4, "mode": "min"}, {"target": 4, "unit": "bytes"}])
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LengthConfig(**wrong)
