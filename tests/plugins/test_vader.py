"""The VADER reward on the real lexicon."""

from __future__ import annotations

import pytest

from mmalign import Record, Sample
from mmalign_rewards.vader import Vader


def make_samples(*texts: str) -> list[Sample]:
    record = Record.from_text("Write.", texts)
    return [Sample(record, response, response.text) for response in record.responses]


def test_compound_scores_are_those_of_the_paper_s_program() -> None:
    # The first two are from the examples in the VADER repository's README.
    texts = ("VADER is smart, handsome, and funny.", "Today SUX!", "The table has four legs.", "")
    assert Vader().score(make_samples(*texts)) == [0.8316, -0.5461, 0.0, 0.0]


def test_it_reads_the_response_and_not_the_prompt() -> None:
    record = Record.from_text("What a horrible, awful day!", ["A lovely day."])
    assert Vader().score([Sample(record, record.responses[0], "A lovely day.")])[0] > 0.5


def test_an_output_that_is_no_text_is_refused() -> None:
    record = Record.from_text("Draw.", ["x"])
    with pytest.raises(TypeError, match="reads text, but the response decodes to bytes"):
        Vader().score([Sample(record, record.responses[0], b"pixels")])
