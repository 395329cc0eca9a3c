"""Rationales as records: what is asked, in which order, and what an objective makes of it."""

from __future__ import annotations

import pytest
from transforming import build, compared, rated, transform

from mmalign import ConfigError, DataError, Message, Note, Part, Record


def explained(id: str = "p", text: str = "It is right.", items: tuple[str, ...] = ()) -> Record:
    record = compared(rated({"Paris.": 1.0, "Lyon.": 0.0}, id, prompt="Capital?"), ("r0", "r1"))
    return record.model_copy(update={"notes": (Note(kind="rationale", text=text, items=items),)})


def test_a_rationale_by_hand() -> None:
    record, rationale = transform(explained(), "rationales", first="chosen")
    assert record == explained()
    assert (
        rationale.prompt[-1].text
        == "Capital?\n\nAnswer A: Paris.\n\nAnswer B: Lyon.\n\nAnswer A is better. Explain why."
    )
    assert [response.text for response in rationale.responses] == ["It is right."]
    assert (rationale.id, rationale.metadata) == ("p/rationale-0", {"rationale_of": "p"})


def test_the_order_is_random_and_the_better_one_is_named() -> None:
    records = transform([explained(f"p{index}") for index in range(40)], "rationales")[1::2]
    texts = [record.prompt[-1].text for record in records]
    swapped = [text for text in texts if "Answer A: Lyon." in text]
    assert 8 < len(swapped) < 32
    assert all("Answer B is better" in text for text in swapped)
    assert all("Answer A is better" in text for text in texts if text not in swapped)
    assert transform([explained("p3")], "rationales")[1] == records[3]


def test_the_rationale_is_imitated_and_is_in_no_pair() -> None:
    """`sft` trains on `targets`: the rationale here, the chosen response in the record of the pair."""
    record, rationale = transform(explained(), "rationales")
    assert (record.targets(), rationale.targets()) == ([True, False], [True])
    assert (len(record.pair_indices()), rationale.pair_indices()) == (1, [])


def test_a_prompt_that_does_not_end_with_the_user_gets_a_message() -> None:
    prefix = Message(role="assistant", content=(Part(type="text", text="It is"),))
    record = explained().model_copy(update={"prompt": (*explained().prompt, prefix)})
    assert [message.role for message in transform(record, "rationales")[1].prompt] == ["user", "assistant", "user"]


def test_items_say_which_pair_is_meant() -> None:
    three = compared(rated({"a": 2.0, "b": 1.0, "c": 0.0}), ("r0", "r1"), ("r0", "r2"))
    note = Note(kind="rationale", text="Because.", items=("r0", "r2"))
    _, rationale = transform(three.model_copy(update={"notes": (note,)}), "rationales", first="chosen")
    assert "Answer A: a\n\nAnswer B: c" in rationale.prompt[-1].text
    with pytest.raises(DataError, match="record 'p': a rationale about no items fits 2 pairs; expected `items`"):
        transform(three.model_copy(update={"notes": (note.model_copy(update={"items": ()}),)}), "rationales")


def test_what_is_wrong_is_said() -> None:
    record = explained().model_copy(update={"notes": (Note(kind="rational", text="x"),)})
    with pytest.raises(DataError, match="rationales: record 'p': no note of kind 'rationale'; did you mean 'rational'"):
        transform(record, "rationales")
    assert transform(record, "rationales", missing="keep") == [record]
    with pytest.raises(ConfigError, match=r"template: expected \{first\}, \{second\}, \{better\}"):
        build("rationales", template="Why?")
