"""Pairs about which knowledge to trust: the errors, their validity, and the caps."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any

import pytest
from transforming import build, pairs_of, rated, transform

from mmalign import ConfigError, DataError, Record
from mmalign_transforms.knowpo import is_ignorance, is_over_inclusion

CONTEXT = "Paris is the capital of France. Lyon is large."
ITEM = {"context": CONTEXT, "context_kind": "related", "answer": "Paris", "memory": "Marseille", "span": "Lyon"}


def question(id: str = "p", **changes: Any) -> Record:
    meta = {key: value for key, value in {**ITEM, **changes}.items() if value is not None}
    return Record.from_text("Capital?", id=id).model_copy(update={"meta": json.dumps(meta)})


def test_either_error_of_a_related_context() -> None:
    records = transform([question(f"p{index}") for index in range(200)], "knowpo")
    cells = Counter(record.labels[0].context for record in records)
    assert cells.keys() == {"related:over_inclusion", "related:ignorance"}
    assert 70 < cells["related:ignorance"] < 130
    for record in records:
        rejected = "Lyon" if record.labels[0].context == "related:over_inclusion" else "Marseille"
        assert pairs_of(record)[0][:2] == ("Paris", rejected)
        assert record.prompt[-1].text == f"Context: {CONTEXT}\n\nCapital?"


def test_a_counterfactual_context_is_trusted_and_an_irrelevant_one_is_not() -> None:
    """The kind of context flips which of the two answers is chosen."""
    fake = question(context="Lima is the capital of France.", context_kind="counterfactual", answer="Lima", span=None)
    (trusted,) = transform(fake, "knowpo")
    assert pairs_of(trusted)[0][:2] == ("Lima", "Marseille")
    (remembered,) = transform(question(context_kind="irrelevant", answer=None), "knowpo")
    assert pairs_of(remembered)[0][:2] == ("Marseille", "Lyon")
    (unknown,) = transform(
        question(context_kind="irrelevant", answer=None, memory=None), "knowpo", frame="It is {answer}."
    )
    assert pairs_of(unknown)[0][:2] == ("I don't know.", "It is Lyon.")
    assert unknown.labels[0].context == "irrelevant:unknown"


def test_a_refusal_is_the_ignorance_of_an_unknown_answer() -> None:
    (record,) = transform(question(memory=None, span=None), "knowpo", frame="It is {answer}.")
    assert pairs_of(record)[0][:2] == ("It is Paris.", "I don't know.")


def test_validators_by_hand() -> None:
    assert is_over_inclusion("lyon", CONTEXT, "Paris") and not is_over_inclusion("Nice", CONTEXT, "Paris")
    assert not is_over_inclusion("Paris is the capital", CONTEXT, "Paris")
    assert is_ignorance("Lyon", "Paris") and not is_ignorance("It is PARIS", "Paris")


def test_every_pair_is_valid() -> None:
    for record in transform([question(f"p{index}") for index in range(50)], "knowpo"):
        chosen, rejected, _ = pairs_of(record)[0]
        assert is_ignorance(rejected, chosen)
        if record.labels[0].context == "related:over_inclusion":
            assert is_over_inclusion(rejected, CONTEXT, chosen)


def test_caps_and_items_without_a_valid_error_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    items = [question(f"p{index}", span=None) for index in range(5)]
    with caplog.at_level(logging.WARNING):
        assert len(transform([*items, question("x", span=None, memory="Paris!")], "knowpo", cap=3)) == 3
    expected = "knowpo: left out 2 items (related:ignorance: 3 already), 1 items (no valid wrong answer)"
    assert expected in caplog.text


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(
        DataError, match=r"knowpo: record 'p': meta.context_kind: input should be 'related'.* got 'relat'"
    ):
        transform(question(context_kind="relat"), "knowpo")
    with pytest.raises(DataError, match=r"record 'p': meta.context: field required; did you mean 'contxt'\?"):
        transform(question(context=None, contxt="x"), "knowpo")
    with pytest.raises(DataError, match=r"record 'p': meta.answer: 'Nice' does not stand in the context"):
        transform(question(answer="Nice"), "knowpo")
    with pytest.raises(DataError, match=r"record 'p': meta.span: string should have at least 1 character, got ''"):
        transform(question(span=""), "knowpo")
    with pytest.raises(DataError, match=r"record 'p': meta.answer: missing; a related context holds one"):
        transform(question(answer=None), "knowpo")
    with pytest.raises(DataError, match="record 'p': has responses already"):
        transform(rated({"a": 1.0}), "knowpo")
    with pytest.raises(ConfigError, match=r"frame: expected \{answer\} in the template"):
        build("knowpo", frame="It is so.")
