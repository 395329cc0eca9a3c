"""Pairs with and without reasoning traces."""

from __future__ import annotations

import logging

import pytest
from transforming import compared, pairs_of, rated, transform

from mmalign import DataError, Label
from mmalign_transforms.bvpo import strip_trace

PAIR = compared(rated({"<think>2 + 2</think>4": 1.0, "so, 5?</think>5": 0.0}), ("r0", "r1"), strength=1.0)


def test_every_pair_comes_with_and_without_its_traces() -> None:
    traced, empty = transform(PAIR, "bvpo", empty="")
    assert pairs_of(traced) == [("<think>2 + 2</think>4", "so, 5?</think>5", 1.0)]
    assert pairs_of(empty) == [("<think></think>4", "</think>5", 1.0)]
    assert [record.labels[0].context for record in (traced, empty)] == ["trace", "empty"]
    assert [record.id for record in (traced, empty)] == ["p/0-trace", "p/0-empty"]
    assert traced.scores == empty.scores == PAIR.scores


def test_only_the_first_trace_is_emptied() -> None:
    text = "Well. <t>a\nb</t>answer <t>c</t>"
    assert strip_trace(text, "<t>", "</t>", "\n\n") == "Well. <t>\n\n</t>answer <t>c</t>"


def test_other_delimiters() -> None:
    record = compared(rated({"[R]a[/R]b": 1.0, "[R]c[/R]d": 0.0}), ("r0", "r1"))
    _, empty = transform(record, "bvpo", opening="[R]", closing="[/R]")
    assert [pair[:2] for pair in pairs_of(empty)] == [("[R]\n\n[/R]b", "[R]\n\n[/R]d")]


def test_other_labels_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    verdict = Label(kind="unary", order=(("r0",),), strength=1.0)
    with caplog.at_level(logging.WARNING):
        transform(PAIR.model_copy(update={"labels": (*PAIR.labels, verdict)}), "bvpo")
    assert "bvpo: left out 1 labels (no pair of plain responses)" in caplog.text


def test_what_is_wrong_is_said() -> None:
    plain = compared(rated({"<think>a</think>b": 1.0, "c": 0.0}), ("r0", "r1"))
    with pytest.raises(
        DataError, match="bvpo: record 'p': response 'r1' has no trace that ends with '</think>'; set op"
    ):
        transform(plain, "bvpo")
    labelled = compared(rated({"a": 1.0, "b": 0.0}), ("r0", "r1"), context="news")
    with pytest.raises(DataError, match="a label has the context 'news' already; expected none"):
        transform(labelled, "bvpo")
