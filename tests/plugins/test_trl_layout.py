"""TRL columns to records and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layout_rows import read_row, write_rows_of

from mmalign.data.records import Record
from mmalign.errors import DataError

EXAMPLES = (Path(__file__).parents[1] / "data" / "example_records.jsonl").read_text(encoding="utf-8").splitlines()
PNG = b"\x89PNG\r\n\x1a\n0000"


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def example(name: str) -> Record:
    return next(record for record in map(Record.from_json, EXAMPLES) if record.id.startswith(name))


PREFERENCE = {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        PREFERENCE,
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
    ],
    ids=["strings", "messages", "implicit prompt", "prompt repeated"],
)
def test_preference_forms_agree(row: dict[str, Any]) -> None:
    record = read_row(row, 3)
    assert record.id == "row-3"
    assert (record.prompt_text, [response.text for response in record.responses]) == ("q", ["a", "b"])
    assert [(chosen, rejected) for chosen, rejected, _ in record.pair_indices()] == [(0, 1)]
    assert write_rows_of(record, "trl") == [PREFERENCE]


def test_implicit_string_prompt_ends_between_words() -> None:
    record = read_row({"chosen": "The sky is red", "rejected": "The sky is read"}, 0)
    assert record.prompt_text == "The sky is"
    assert [response.text for response in record.responses] == [" red", " read"]


def test_implicit_prompt_of_several_turns() -> None:
    shared = [user("q"), assistant("x"), user("r")]
    record = read_row({"chosen": [*shared, assistant("a")], "rejected": [*shared, assistant("b")]}, 0)
    assert [message.role for message in record.prompt] == ["user", "assistant", "user"]


def test_margin_is_the_strength_and_other_columns_are_meta() -> None:
    record = read_row({**PREFERENCE, "margin": 2, "gold": "x", "id": "p1", "empty": None}, 0)
    assert record.pair_indices() == [(0, 1, 2.0)]
    assert (record.id, record.metadata) == ("p1", {"gold": "x"})
    assert write_rows_of(record, "trl") == [{**PREFERENCE, "margin": 2.0, "gold": "x"}]


@pytest.mark.parametrize(("label", "expected"), [(True, 1.0), (False, 0.0)])
def test_unpaired(label: bool, expected: float) -> None:
    record = read_row({"prompt": "q", "completion": "c", "label": label}, 0)
    assert record.response_labels() == [expected]
    assert write_rows_of(record, "trl") == [{"prompt": [user("q")], "completion": [assistant("c")], "label": label}]


def test_prompt_completion() -> None:
    record = read_row({"prompt": "q", "completion": "c"}, 0)
    assert record.labels == ()
    assert write_rows_of(record, "trl") == [{"prompt": [user("q")], "completion": [assistant("c")]}]


def test_messages_are_split_before_the_first_assistant_turn() -> None:
    turns = [user("q"), assistant("a"), user("r"), assistant("b")]
    record = read_row({"messages": turns}, 0)
    assert len(record.prompt) == 1
    assert [message.role for message in record.responses[0].messages] == ["assistant", "user", "assistant"]


def test_prompt_only() -> None:
    record = read_row({"prompt": "q", "answer": 4}, 0)
    assert record.responses == ()
    assert write_rows_of(record, "trl") == [{"prompt": [user("q")], "answer": 4}]


def test_images_fill_placeholders_in_order() -> None:
    content = [{"type": "image", "text": None}, {"type": "text", "text": "or", "image": None}, {"type": "image"}]
    row = {"prompt": [{"role": "user", "content": content}], "completion": "c", "images": ["a.png", {"bytes": PNG}]}
    record = read_row(row, 0)
    assert [part.media for part in record.prompt[0].content] == ["m1", None, "m2"]
    assert record.media[0].uri == "a.png"
    assert record.media[1].uri.startswith("data:image/png;base64,")
    (back,) = write_rows_of(record, "trl")
    assert back["images"] == [media.uri for media in record.media]
    assert back["prompt"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}]


def test_images_without_placeholders_come_first() -> None:
    record = read_row({"prompt": "what?", "completion": "c", "images": ["a.png"]}, 0)
    assert [part.type for part in record.prompt[0].content] == ["image", "text"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "a"}, "rejected: missing"),
        ({"prompt": "q", "chosn": "a", "rejcted": "b"}, "chosn: unknown column; did you mean 'chosen'?"),
        ({"completion": "a"}, "prompt: missing"),
        ({"prompt": 3}, "prompt: expected a string or a list of messages"),
        ({"prompt": [{"content": "x"}]}, r"prompt\[0\]: expected an object with 'role' and 'content'"),
        ({"prompt": "q", "completion": "c", "label": "good"}, "label: expected true or false"),
        ({**PREFERENCE, "margin": "big"}, "margin: expected a number"),
        ({"prompt": "q", "chosen": "a", "rejected": [assistant("b")]}, "chosen: expected two strings or two lists"),
        ({"messages": [user("q")]}, "messages: no assistant turn"),
        ({"messages": [assistant("q")]}, "messages: no turn of a user before"),
        ({"chosen": "abc", "rejected": "xyz"}, "do not begin with a common one"),
        ({"chosen": [user("q"), assistant("a")], "rejected": [user("r"), assistant("b")]}, "begin with different"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "images": ["a", "b"]}, "2 images, but 1"),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "images: 0 images, but more"),
        ({"prompt": "q", "images": [{"bytes": b"what"}]}, r"images\[0\]: unknown image format"),
        ({"prompt": "q", "images": [3]}, r"images\[0\]: expected a path, a URI or bytes, got int"),
    ],
)
def test_wrong_row_names_the_column(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_row(row, 0, "trl")


# -- records to TRL ---------------------------------------------------------------------------------------------------


def test_image_placeholders_carry_no_payload() -> None:
    """TRL counts an `image` key as a filled placeholder, and templates take a text part with that key for an image."""
    (row,) = write_rows_of(example("mia"), "trl")
    parts = row["prompt"][0]["content"]
    assert parts[:3] == [{"type": "image"}] * 3
    assert set(parts[3]) == {"type", "text"}
    assert row["images"] == ["img/1.jpg", "img/2.jpg", "img/3.jpg"]


@pytest.mark.parametrize(("name", "count"), [("mia", 1), ("cpl", 1), ("hyb", 4), ("cipher", 1), ("ltr", 1)])
def test_rows_of_examples(name: str, count: int) -> None:
    assert len(write_rows_of(example(name), "trl")) == count


def test_clicks_are_unpaired_rows_and_no_preferences() -> None:
    assert write_rows_of(example("ltr"), "trl", form="preference") == []
    assert write_rows_of(example("ltr"), "trl")[0]["label"] is True


def test_sibling_nodes_are_a_pair_of_steps() -> None:
    (row,) = write_rows_of(example("cpl"), "trl")
    assert row["chosen"] == [assistant("Group pens in threes.")]
    assert row["margin"] == 1.1


def test_stepwise_rows_label_steps_by_value() -> None:
    good, bad = write_rows_of(example("cpl"), "trl", form="stepwise")
    assert (good["labels"], bad["labels"]) == ([True, True], [False, False])
    assert good["completions"] == ["Group pens in threes.", "12/3=4; 4*2=8."]


def test_view_of_an_agent() -> None:
    (row,) = write_rows_of(example("optima"), "trl", view="Alice")
    assert row["chosen"] == [assistant("[A: host=Oslo 1952]")]
    assert write_rows_of(example("optima"), "trl", view="Bob") == []


def test_partner_turns_become_user_turns() -> None:
    (row, *_) = write_rows_of(example("optima"), "trl", form="completion", view="Bob")
    assert row["completion"] == [user("Alice: [A: host=Oslo 1952]"), assistant("<A>Oslo</A>")]


def test_pair_of_cousins_is_refused() -> None:
    data = example("cpl").to_dict()
    data["labels"] = [{"kind": "pair", "order": [["node:n3"], ["node:n4"]]}]
    with pytest.raises(DataError, match="answer different prompts"):
        write_rows_of(Record.from_dict(data), "trl")


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("vdpo", None, "answer different prompts"),
        ("vdpo", "prompt", "a clip of a video has no place in such rows"),
        ("optima", None, "several agents speak"),
        ("mia", "stepwise", "stepwise rows hold text alone"),
    ],
)
def test_what_trl_cannot_say_is_refused(name: str, form: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_rows_of(example(name), "trl", form=form)


def test_common_leading_turns_move_into_the_prompt() -> None:
    shared = [assistant("x"), user("r")]
    row = {"prompt": "q", "chosen": [*shared, assistant("a")], "rejected": [*shared, assistant("b")]}
    (back,) = write_rows_of(read_row(row, 0), "trl")
    assert back == {"prompt": [user("q"), *shared], "chosen": [assistant("a")], "rejected": [assistant("b")]}
