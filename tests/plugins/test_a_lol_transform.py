"""A-LoL's sampling: responses in proportion to their positive advantage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from transforming import compared, rated, transform

from mmalign import DataError, Record, Score


def valued(ratings: Mapping[str, float | None], value: float, id: str = "p") -> Record:
    record = rated(ratings, id)
    rows = (Score(item=one.rid, name="value", level="response", value=value) for one in record.responses)
    return record.model_copy(update={"scores": (*record.scores, *rows)})


def test_draws_are_in_proportion_to_the_advantage() -> None:
    """Advantages 1, 3 and -1, 400 draws: 100 and 300 of them, exactly, as both are whole numbers."""
    found = transform(valued({"a": 1.5, "b": 3.5, "c": -0.5}, 0.5), "a_lol", count=400)
    assert Counter(record.responses[0].text for record in found) == {"a": 100, "b": 300}


def test_fractions_are_rounded_at_random_and_right_on_average() -> None:
    records = [valued({"a": 1.0, "b": 2.0}, 0.0, f"p{index}") for index in range(300)]
    found = Counter(record.responses[0].text for record in transform(records, "a_lol", count=450))
    assert found["b"] == 300
    assert 120 < found["a"] < 180  # half of 300, by chance


def test_a_draw_keeps_what_is_known_of_its_response(caplog: pytest.LogCaptureFixture) -> None:
    record = compared(valued({"a": 2.0, "b": 0.0, "c": None}, 1.0), ("r0", "r1"))
    (drawn,) = transform(record, "a_lol")
    assert drawn.id == "p/r0/0"
    assert [(score.name, score.value) for score in drawn.scores] == [("overall", 2.0), ("value", 1.0)]
    assert drawn.labels == () and drawn.prompt == record.prompt
    assert "a_lol: left out 1 responses (no positive advantage), 1 responses (no rating)" in caplog.text


def test_order_of_the_data_changes_no_draw() -> None:
    records = [valued({"a": 1.0, "b": 0.3}, 0.1, f"p{index}") for index in range(20)]
    found, turned = transform(records, "a_lol", count=30), transform(records[::-1], "a_lol", count=30)
    assert sorted(record.id for record in turned) == sorted(record.id for record in found)
    assert len({record.id for record in found}) == len(found)
    assert [one.id for one in transform(records, "a_lol", count=30, seed=1)] != [one.id for one in found]


def test_without_a_positive_advantage_nothing_is_drawn() -> None:
    assert transform(valued({"a": 1.0}, 1.0), "a_lol") == []


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(DataError, match="a_lol: record 'p': response 'r0' has no score 'valeu'; did you mean 'value'"):
        transform(valued({"a": 1.0}, 0.0), "a_lol", value="valeu")
    with pytest.raises(DataError, match="a_lol: record 'p': no response is rated"):
        transform(Record.from_text("q", ["a"], id="p"), "a_lol")
