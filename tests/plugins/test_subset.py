"""Subsets: the same seed gives the same part, and smaller parts lie within larger ones."""

from __future__ import annotations

import pytest
from transforming import build, transform

from mmalign import ConfigError, DataError, Record

RECORDS = [Record.from_text("q", id=f"p{index}") for index in range(400)]


def ids(**parameters: object) -> list[str]:
    return [record.id for record in transform(RECORDS, "subset", **parameters)]


def test_a_smaller_fraction_lies_within_a_larger_one() -> None:
    tenth, fifth = ids(fraction=0.1), ids(fraction=0.2)
    assert set(tenth) < set(fifth)
    assert 20 <= len(tenth) <= 60 and 50 <= len(fifth) <= 110


def test_the_same_seed_gives_the_same_part_whatever_else_there_is() -> None:
    half = ids(fraction=0.5)
    assert half == ids(fraction=0.5) != ids(fraction=0.5, seed=1)
    some = [record.id for record in transform(RECORDS[100:], "subset", fraction=0.5)]
    assert some == [id for id in half if int(id[1:]) >= 100]


def test_everything_is_a_part() -> None:
    assert ids(fraction=1.0) == ids(count=400) == [record.id for record in RECORDS]


def test_a_count_is_exact_and_nested_in_the_order_of_the_data() -> None:
    ten, twenty = ids(count=10), ids(count=20)
    assert (len(ten), len(twenty)) == (10, 20)
    assert set(ten) < set(twenty)
    assert ten == sorted(ten, key=lambda id: int(id[1:]))
    fraction = ids(fraction=0.1)
    assert ids(count=len(fraction)) == fraction


def test_a_count_looks_at_everything_and_a_fraction_does_not() -> None:
    assert build("subset", count=1).whole and not build("subset", fraction=0.1).whole


def test_too_many_are_refused() -> None:
    with pytest.raises(DataError, match="subset: count: 401 records, but there are only 400"):
        ids(count=401)


@pytest.mark.parametrize("parameters", [{}, {"fraction": 0.1, "count": 3}])
def test_one_size_is_needed(parameters: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"data.train.transforms\[0\]: expected one of fraction and count"):
        build("subset", **parameters)
