"""Which responses a pair is scored with: gold ones, rationales, revisions."""

from __future__ import annotations

from mmalign import Record
from mmalign_objectives.support import companion_rows as companions


def record_of(**fields) -> Record:
    plain = Record.from_text("Name a city.", ["Paris", "Lyon", "Bonn"], id="x")
    return Record.from_dict({**plain.to_dict(), **fields})


def rating(item: str, value: float) -> dict[str, object]:
    return {"item": item, "name": "quality", "level": "response", "value": value}


def unary(item: str, strength: float) -> dict[str, object]:
    return {"kind": "unary", "order": [[item]], "strength": strength}


def text_of(record: Record | None) -> str:
    assert record is not None
    return record.responses[0].text


RATED = [rating("r0", 0.0), rating("r1", -1.0)]


def test_gold_is_what_is_praised_most_else_the_best_rated() -> None:
    assert text_of(companions.find_gold(record_of(scores=RATED), 0, 1)) == "Paris"
    praised = record_of(scores=RATED, labels=[unary("r1", 1.0), unary("r2", 2.0), unary("r0", -3.0)])
    assert text_of(companions.find_gold(praised, 0, 1)) == "Bonn"
    blamed = record_of(scores=RATED, labels=[unary("r0", -3.0)])
    assert text_of(companions.find_gold(blamed, 0, 1)) == "Paris"


def test_without_praise_and_ratings_there_is_no_gold() -> None:
    assert companions.find_gold(record_of(), 0, 1) is None


def test_a_rationale_answers_why_under_the_same_prompt() -> None:
    notes = [
        {"kind": "critique", "text": "No."},
        {"kind": "rationale", "text": "Other.", "items": ["r0", "r2"]},
        {"kind": "rationale", "text": "Larger.", "items": ["r1", "r0"]},
    ]
    asked = companions.build_rationale(record_of(notes=notes), 0, 1, instruction="Why {chosen}, not {rejected}?")
    assert text_of(asked) == "Larger."
    assert [message.text for message in asked.prompt] == ["Name a city.\n\nWhy Paris, not Lyon?"]
    assert companions.build_rationale(record_of(notes=notes), 1, 2, instruction="") is None


def test_a_rationale_without_items_is_about_all_responses() -> None:
    record = record_of(notes=[{"kind": "rationale", "text": "Larger."}])
    assert text_of(companions.build_rationale(record, 2, 1, instruction="Why?")) == "Larger."


def test_a_question_after_a_begun_answer_is_a_turn_of_its_own() -> None:
    begun = {"role": "assistant", "content": [{"type": "text", "text": "It is"}]}
    record = record_of(notes=[{"kind": "rationale", "text": "Larger."}])
    record = Record.from_dict({**record.to_dict(), "prompt": [*record.to_dict()["prompt"], begun]})
    asked = companions.build_rationale(record, 0, 1, instruction="Why?")
    assert [message.role for message in asked.prompt] == ["user", "assistant", "user"]
    assert companions.revise_rejected_into_chosen(record, 0, 1, instruction="Better.") is None


def test_revisions_follow_the_answer_that_they_improve() -> None:
    record = record_of()
    revised = companions.revise_rejected_into_chosen(record, 0, 1, instruction="Better.")
    assert [message.text for message in revised.prompt] == ["Name a city.", "Lyon", "Better."]
    assert text_of(revised) == "Paris"
    functions = {
        companions.revise_chosen_into_rejected: ("Paris", "Lyon"),
        companions.revise_chosen_into_itself: ("Paris", "Paris"),
        companions.revise_rejected_into_itself: ("Lyon", "Lyon"),
    }
    for function, (before, after) in functions.items():
        one = function(record, 0, 1, instruction="Better.")
        assert (one.prompt[1].text, text_of(one)) == (before, after)
