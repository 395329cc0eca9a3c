"""Scores in JSON objects: the last one that has them all, or none."""

from __future__ import annotations

from math import nan

import pytest

from mmalign import RequestFailed
from mmalign_rewards.score_objects import read_score_object

NAMES = ("helpful", "verbose")


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('{"helpful": 1, "verbose": 2}', [1, 2]),
        ('```json\n{"verbose": 2,\n "helpful": 1}\n```', [1, 2]),
        ('First {"helpful": 9, "verbose": 9}, no: {"helpful": 1, "verbose": 2, "why": "{}"} {"done": 1}', [1, 2]),
        ('{"scores": {"helpful": 1, "verbose": 2}}', [1, 2]),
        ('{"helpful": 1, "verbose": null}', [1, nan]),
        ('{"why": "{\\"helpful\\": 9, \\"verbose\\": 9}", "helpful": 1, "verbose": 2}', [1, 2]),
        ('{x} and {"helpful": 1, "verbose": 2}. Thanks!', [1, 2]),
    ],
)
def test_the_last_object_with_all_names_counts(text: str, scores: list[float]) -> None:
    assert read_score_object(text, NAMES, (0, 10)) == pytest.approx(scores, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"helpful": 1}', """no score in '{"helpful": 1}'"""),
        ('{"helpful": 1, "verbose": 2', "no score in"),
        ("{" * 5000, "no score in"),
        ('{"a":' * 5000, "no score in"),
        ('{"helpful": 1, "verbose": "2"}', "expected a finite number as the score, got '2'"),
        ('{"helpful": 1, "verbose": true}', "expected a finite number as the score, got True"),
        ('{"helpful": 1, "verbose": Infinity}', "expected a finite number as the score, got inf"),
        ('{"helpful": 1, "verbose": 20}', "expected a score from 0 to 10, got 20"),
        ('{"helpful": 1, "verbose": 2, "helpful": 8}', "expected a finite number as the score, got [1, 8]"),
        ('{"a": {"helpful": 1, "verbose": 2}, "b": {"helpful": 3, "verbose": 4}}', "no score in"),
        ('{"helpful": 1, "verbose": 2} Better: {"helpful": 3, "verb', "no score in"),
        ('{"helpful": 1, "verbose": 2}, or helpful: rather 3', "no score in"),
        ('{"draft": {"helpful": 1, "verbose": 2}, "fin', "no score in"),
    ],
)
def test_what_is_not_sure_has_no_scores(text: str, message: str) -> None:
    failure = read_score_object(text, NAMES, (0, 10))
    assert isinstance(failure, RequestFailed)
    assert message in str(failure)
