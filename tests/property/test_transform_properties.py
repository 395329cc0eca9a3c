"""What holds for every transform that makes or uses pairs, on random ratings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transforming import apply, build, compared, rated

from mmalign import Record

RATINGS = st.lists(st.integers(0, 4), min_size=2, max_size=5)
PAIRING: dict[str, dict[str, Any]] = {
    **{scheme: {"name": "pairs_from_ratings", "pairs": scheme} for scheme in ("best_vs_worst", "best_vs_random")},
    **{scheme: {"name": "pairs_from_ratings", "pairs": scheme} for scheme in ("best_vs_each", "adjacent", "all")},
    "rso": {"name": "rso", "accept": 2},
    "tournament": {"name": "rso", "accept": 2, "pairing": "tournament"},
}
SPLITTING: dict[str, tuple[dict[str, Any], int]] = {
    "curriculum": ({"name": "curriculum", "stages": 1}, 1),
    "rad": ({"name": "rad", "template": "{score}"}, 2),
    "fspo": ({"name": "fspo", "shots": 1, "fewer": "use"}, 1),
}


def make(ratings: list[list[int]]) -> list[Record]:
    return [
        rated({f"t{place}": float(rating) for place, rating in enumerate(row)}, f"p{index}", prompt=f"q{index}")
        for index, row in enumerate(ratings)
    ]


def count_pairs(records: list[Record]) -> int:
    return sum(len(record.pair_indices()) for record in records)


@settings(max_examples=40, deadline=None)
@given(ratings=st.lists(RATINGS, min_size=1, max_size=6))
@pytest.mark.parametrize("name", PAIRING)
def test_pairs_follow_the_ratings_and_nothing_but_the_record(name: str, ratings: list[list[int]]) -> None:
    records, transform = make(ratings), build(**PAIRING[name])
    paired = apply(transform, records)
    for record in paired:
        values = record.ratings()
        assert record.labels
        for chosen, rejected, strength in record.pair_indices():
            assert values[chosen] - values[rejected] == strength > 0
        texts = {response.text for response in record.responses}
        assert texts <= {response.text for response in records[int(record.id[1:])].responses}
    assert apply(transform, records[::-1]) == paired[::-1]
    assert apply(transform, records[:1]) == [record for record in paired if record.id == "p0"]
    untied = {record.id for record in records if len(set(record.ratings())) > 1}
    assert untied >= {record.id for record in paired}
    if PAIRING[name]["name"] == "pairs_from_ratings":
        assert untied == {record.id for record in paired}


@settings(max_examples=40, deadline=None)
@given(ratings=st.lists(RATINGS, min_size=1, max_size=6))
@pytest.mark.parametrize("name", SPLITTING)
def test_no_pair_is_lost_and_none_comes_twice(name: str, ratings: list[list[int]]) -> None:
    pairs = apply(build("pairs_from_ratings", pairs="all"), make(ratings))
    records = [compared(record.model_copy(update={"labels": ()}), *_rids(record), user="ann") for record in pairs]
    if not records:
        return
    parameters, factor = SPLITTING[name]
    split = apply(build(**parameters), records)
    assert count_pairs(split) == len(split) == factor * count_pairs(records)
    assert len({record.id for record in split}) == len(split)
    sources = Counter(record.id.partition("/")[0] for record in split)
    assert sources == {record.id: factor * count_pairs([record]) for record in records}
    assert all(len(record.responses) == len(record.scores) == 2 for record in split)


@settings(max_examples=60, deadline=None)
@given(ratings=st.lists(RATINGS, min_size=1, max_size=6), least=st.integers(0, 5))
def test_a_filter_on_gaps_keeps_exactly_the_pairs_in_it(ratings: list[list[int]], least: int) -> None:
    pairs = apply(build("pairs_from_ratings", pairs="all"), make(ratings))
    kept = apply(build("filter", gap={"least": least}), pairs)
    expected = sum(strength >= least for record in pairs for _, _, strength in record.pair_indices())
    assert count_pairs(kept) == expected
    assert all(record.pair_indices() for record in kept)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), small=st.floats(0.01, 1), large=st.floats(0.01, 1), seed=st.integers(0, 5))
def test_subsets_are_nested(count: int, small: float, large: float, seed: int) -> None:
    records = make([[0, 1]] * count)
    low, high = sorted((small, large))
    part, whole = (apply(build("subset", fraction=fraction, seed=seed), records) for fraction in (low, high))
    assert {record.id for record in part} <= {record.id for record in whole}


def _rids(record: Record) -> list[tuple[str, str]]:
    rids = [response.rid for response in record.responses]
    return [(rids[chosen], rids[rejected]) for chosen, rejected, _ in record.pair_indices()]
