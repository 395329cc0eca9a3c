"""Few-shot preference prompts: whose pairs are shown, and what stays as it is."""

from __future__ import annotations

import logging

import pytest
from transforming import build, compared, pairs_of, rated, transform

from mmalign import ConfigError, DataError, Note, Record


def preference(user: str, index: int, *, flipped: bool = False) -> Record:
    order = ("r1", "r0") if flipped else ("r0", "r1")
    record = rated({f"long {index}": 1.0, f"short {index}": 0.0}, f"{user}{index}", prompt=f"question {index}")
    return compared(record, order, user=user)


DATA = [preference("ann", i) for i in range(6)] + [preference("bob", i, flipped=True) for i in range(6)]


def test_no_shots_leave_the_data_as_they_are() -> None:
    assert transform(DATA, "fspo", shots=0) == DATA


def test_shots_are_of_the_same_user_and_never_the_target() -> None:
    for record in transform(DATA, "fspo", shots=3):
        (label,) = record.labels
        own = record.id.partition("/")[0]
        assert len(set(label.shots)) == 3 and own not in label.shots
        assert all(shot.startswith(label.user or "?") for shot in label.shots)
        assert record.prompt[-1].text.endswith(f"question {own[3:]}")
        assert f"question {own[3:]}\nPreferred" not in record.prompt[-1].text


def test_a_prompt_by_hand() -> None:
    (record, _) = transform([preference("ann", 0), preference("ann", 1)], "fspo", shots=1)
    assert record.prompt[-1].text == (
        "Question: question 1\nPreferred answer: long 1\nDispreferred answer: short 1\n\nquestion 0"
    )
    assert pairs_of(record)[0][:2] == ("long 0", "short 0")
    assert record.labels[0].shots == ("ann1",)
    (record, _) = transform([preference("ann", 0), preference("ann", 1)], "fspo", shots=1, dispreferred=False)
    assert record.prompt[-1].text == "Question: question 1\nPreferred answer: long 1\n\nquestion 0"


def test_users_who_disagree_get_other_shots_and_swapped_labels() -> None:
    by_id = {record.id: record for record in transform(DATA, "fspo", shots=5)}
    ann, bob = by_id["ann0/0"], by_id["bob0/0"]
    assert pairs_of(ann)[0][:2] == pairs_of(bob)[0][:2][::-1]
    assert ann.prompt != bob.prompt
    assert sorted(shot[3:] for shot in ann.labels[0].shots) == sorted(shot[3:] for shot in bob.labels[0].shots)


def test_the_same_question_under_another_id_is_no_shot() -> None:
    double = preference("ann", 0).model_copy(update={"id": "copy"})
    records = transform([preference("ann", 0), double, preference("ann", 1)], "fspo", shots=2, fewer="use")
    assert [record.labels[0].shots for record in records[:2]] == [("ann1",), ("ann1",)]


def test_the_shots_do_not_depend_on_the_order_of_the_data() -> None:
    once, again = (
        sorted(record.to_json() for record in transform(data, "fspo", shots=2)) for data in (DATA, DATA[::-1])
    )
    assert once == again
    assert once != sorted(record.to_json() for record in transform(DATA, "fspo", shots=2, seed=1))


def test_users_with_too_few_pairs_are_counted_or_get_fewer_shots(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert transform(DATA[:3], "fspo", shots=3) == []
    assert "fspo: left out 3 pairs (the user has too few others)" in caplog.text
    assert [len(record.labels[0].shots) for record in transform(DATA[:3], "fspo", shots=3, fewer="use")] == [2, 2, 2]


def test_repeats_show_other_shots() -> None:
    records = transform(DATA[:6], "fspo", shots=2, repeats=3)
    assert [record.id for record in records[:3]] == ["ann0/0-0", "ann0/0-1", "ann0/0-2"]
    assert len({record.labels[0].shots for record in records[:6]}) > 2


def test_a_description_of_the_user_comes_first() -> None:
    note = Note(kind="persona", text="Likes detail.")
    record = preference("ann", 0).model_copy(update={"notes": (note,)})
    (described,) = transform(record, "fspo", shots=0, description="persona")
    assert described.prompt[-1].text == "Likes detail.\n\nquestion 0"
    with pytest.raises(DataError, match="fspo: record 'ann0': no note of kind 'person' describes the user"):
        transform(record, "fspo", shots=0, description="person")


def test_what_is_wrong_is_said() -> None:
    anonymous = compared(rated({"a": 1.0, "b": 0.0}), ("r0", "r1"))
    with pytest.raises(DataError, match="fspo: record 'p': a pair label has no user; shots are pairs of one user"):
        transform(anonymous, "fspo")
    with pytest.raises(ConfigError, match=r"template: expected \{question\}, \{preferred\} in the template, found"):
        build("fspo", template="{question}")
