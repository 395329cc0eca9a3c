"""Uncertainty of pairs: information gain, sampling weights, label smoothing, and the records that come of them."""

from __future__ import annotations

import logging
import math
from random import Random

import pytest
from transforming import compared, rated, transform

from mmalign import DataError, Record, Score
from mmalign_transforms.upo import information_gain, label_smoothing, sampling_weights


def judged(id: str, *probabilities: float) -> Record:
    record = compared(rated({"a": 2.0, "b": 1.0}, id), ("r0", "r1"))
    keys = tuple(f"pass{index}" for index in range(len(probabilities)))
    row = Score(item="r0", name="pair_probability", level="vector", values=probabilities, keys=keys)
    return record.model_copy(update={"scores": (*record.scores, row)})


def test_information_gain_by_hand() -> None:
    """Passes 0 and 1: a mean of 1/2 has entropy ln 2, each pass none. Passes 1/4, 3/4: ln 2 - 0.5623351446188083."""
    assert information_gain([0.0, 1.0]) == math.log(2)
    assert information_gain([0.25, 0.75]) == pytest.approx(math.log(2) - 0.5623351446188083, rel=1e-14)


def test_passes_that_agree_gain_nothing() -> None:
    for probability in (0.0, 0.3, 0.5, 1.0):
        assert information_gain([probability] * 7) == pytest.approx(0, abs=1e-15)
    assert sampling_weights([0.0] * 4, 3.0) == [0.25] * 4


def test_information_gain_is_bounded() -> None:
    chance = Random(0)
    for _ in range(200):
        assert 0 <= information_gain([chance.random() for _ in range(5)]) <= math.log(2)


def test_mu_is_an_exponent() -> None:
    assert sampling_weights([0.0, 0.5], 2.0) == pytest.approx([0.8, 0.2])
    assert sampling_weights([0.0, 0.5], 0.0) == [0.5, 0.5]


def test_smoothing_never_prefers_the_rejected_response() -> None:
    assert [label_smoothing(gain) for gain in (0.0, math.log(2) / 2, math.log(2))] == [0.0, 0.25, 0.5]


def test_the_smoothing_is_stored_and_changes_no_rating() -> None:
    (record,) = transform(judged("p", 0.0, 1.0), "upo")
    (row,) = [score for score in record.scores if score.name == "label_smoothing"]
    assert (row.item, row.values) == ("r0", (0.5,))
    assert record.ratings() == [2.0, 1.0]


def test_certain_pairs_are_kept_more_often(caplog: pytest.LogCaptureFixture) -> None:
    records = [judged(f"p{index}", *([0.0, 1.0] if index % 2 else [0.9, 0.9])) for index in range(200)]
    with caplog.at_level(logging.WARNING):
        kept = transform(records, "upo", keep=0.5, mu=8.0)
    doubtful = sum(int(record.id[1:]) % 2 for record in kept)
    assert len(kept) == 100 and doubtful < 15
    assert "upo: left out 100 records (not sampled)" in caplog.text
    uniform = transform(records, "upo", keep=0.5, mu=0.0)
    assert 35 < sum(int(record.id[1:]) % 2 for record in uniform) < 65
    assert transform(records, "upo", keep=0.5, mu=0.0) == uniform


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(DataError, match="upo: record 'p': response 'r0' has no vector score 'pair_prob'; did you mean"):
        transform(judged("p", 0.5), "upo", score="pair_prob")
    with pytest.raises(DataError, match="upo: record 'p': expected one pair, got 2"):
        transform(compared(judged("p", 0.5), ("r0", "r1")), "upo")
    with pytest.raises(
        DataError, match=r"upo: record 'p': score 'pair_probability': expected probabilities, got \[1.5\]"
    ):
        transform(judged("p", 1.5), "upo")
