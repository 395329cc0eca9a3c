"""Rows of every layout: recognised by their columns, read into the records that they mean, written and read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from layout_rows import build_writer, read_row, recognise, write_rows_of

from mmalign.contract.specs import LayoutSpec
from mmalign.data.records import Record
from mmalign.errors import DataError
from mmalign.plugins.registry import load_registry
from mmalign.sources.format_choice import Formats
from mmalign.sources.layouts import LayoutReader

PNG = b"\x89PNG\r\n\x1a\n0000"
Row = dict[str, Any]


def said(role: str, content: Any) -> Row:
    return {"role": role, "content": content}


def spoken(speaker: str, value: str) -> Row:
    return {"from": speaker, "value": value}


def texts(record: Record) -> tuple[list[tuple[str, str]], list[list[tuple[str, str]]]]:
    """The turns of a record: those of its prompt, and of every response."""
    sides = [record.prompt, *(response.messages for response in record.responses)]
    prompt, *responses = [[(one.role, one.text) for one in messages] for messages in sides]
    return prompt, responses


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
PAIR = ([("system", "s"), ("user", "q")], [[("assistant", "a")], [("assistant", "b")]])
ONE = ([("system", "s"), ("user", "q")], [[("assistant", "a")]])
SPOKEN = [spoken("system", "s"), spoken("human", "q"), spoken("gpt", "a")]
SAID = [said("system", "s"), said("user", "q"), said("assistant", "a")]

# The layout, a row of it, and the turns that it means.
ROWS: dict[str, tuple[str, Row, Any]] = {
    "prompt and sides": ("trl", {"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"}, PAIR),
    "system in the prompt": (
        "trl",
        {"prompt": SAID[:2], "chosen": SAID[2:], "rejected": [said("assistant", "b")]},
        PAIR,
    ),
    "repeated prompt": (
        "trl",
        {"prompt": SAID[:2], "chosen": SAID, "rejected": [*SAID[:2], said("assistant", "b")]},
        PAIR,
    ),
    "repeated, the sides have a system turn": (
        "trl",
        {"prompt": "q ", "chosen": SAID, "rejected": [*SAID[:2], said("assistant", "b")]},
        ([("system", "s"), ("user", "q ")], PAIR[1]),
    ),
    "sides alone": ("trl", {"chosen": SAID, "rejected": [*SAID[:2], said("assistant", "b")]}, PAIR),
    "verdict": ("trl", {"system": "s", "prompt": "q", "completion": "a", "label": "true"}, ONE),
    "steps": (
        "trl",
        {"prompt": "q", "completions": ["a", "b"], "labels": [True, False]},
        ([("user", "q")], [[("assistant", "a\nb")]]),
    ),
    "messages": ("openai", {"messages": SAID}, ONE),
    "messages with a system column": ("openai", {"messages": SAID[1:], "system": "s"}, ONE),
    "two outputs": (
        "openai",
        {
            "input": {"messages": SAID[:2]},
            "preferred_output": SAID[2:],
            "non_preferred_output": [said("assistant", "b")],
        },
        PAIR,
    ),
    "ShareGPT": ("sharegpt", {"conversations": SPOKEN}, ONE),
    "ShareGPT with a system column": ("sharegpt", {"conversations": SPOKEN[1:], "system": "s"}, ONE),
    "Alpaca": ("alpaca", {"instruction": "q", "input": "", "output": "a", "system": "s"}, ONE),
    "Alpaca with input and history": (
        "alpaca",
        {"instruction": "q", "input": "x", "output": "a", "history": [["p", "r"]]},
        ([("user", "p"), ("assistant", "r"), ("user", "q\nx")], [[("assistant", "a")]]),
    ),
    "Alpaca with two outputs": ("alpaca", {"instruction": "q", "output": ["a", "b"], "system": "s"}, PAIR),
    "LLaMA-Factory": (
        "llama_factory",
        {"conversations": SPOKEN[:2], "chosen": spoken("gpt", "a"), "rejected": spoken("gpt", "b")},
        PAIR,
    ),
    "LLaMA-Factory, Alpaca": (
        "llama_factory",
        {"instruction": "q", "system": "s", "chosen": "a", "rejected": "b"},
        PAIR,
    ),
    "LLaMA-Factory, verdict": ("llama_factory", {"conversations": SPOKEN, "kto_tag": True}, ONE),
    "ms-swift": ("ms_swift", {"messages": SAID, "rejected_response": "b"}, PAIR),
    "ms-swift, messages": (
        "ms_swift",
        {"messages": SAID, "rejected_messages": [*SAID[:2], said("assistant", "b")]},
        PAIR,
    ),
    "ms-swift, verdict": ("ms_swift", {"messages": SAID, "label": True}, ONE),
    "ms-swift, query": ("ms_swift", {"query": "q", "response": "a", "system": "s"}, ONE),
    "HH-RLHF": (
        "hh_rlhf",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        ([("user", "q")], PAIR[1]),
    ),
    "Orca": ("rlaif_v", {"system": "s", "question": "q", "chosen": "a", "rejected": "b"}, PAIR),
    "UltraFeedback pairs": (
        "ultrafeedback",
        {
            "prompt": "q",
            "chosen": SAID,
            "rejected": [*SAID[:2], said("assistant", "b")],
            "score_chosen": 4.0,
            "score_rejected": 1,
        },
        PAIR,
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_row_is_recognised_and_read(case: str) -> None:
    layout, row, turns = ROWS[case]
    assert recognise(row) == layout
    record = read_row(row, 3)
    assert texts(record) == turns
    assert (record.id, record.meta) == ("row-3", None)
    if len(record.responses) == 2:
        assert [(chosen, rejected) for chosen, rejected, _ in record.pair_indices()] == [(0, 1)]


@pytest.mark.parametrize("case", ROWS)
def test_a_row_is_written_and_read_into_an_equal_record(case: str) -> None:
    layout, row, _ = ROWS[case]
    record = read_row({**row, "id": "x", "gold": 4})
    writer = build_writer(layout)
    (written,) = writer.write(record)
    assert (written["id"], written["gold"]) == ("x", 4)
    if case == "Alpaca with two outputs":  # which only LLaMA-Factory writes so
        assert set(writer.lost) == {"labels", "responses"}
        return
    assert writer.lost == {}
    assert read_row(written) == record


def test_every_layout_has_a_row_here() -> None:
    specs = [entry.spec for entry in load_registry().entries("format")]
    with_media = {"pick_a_pic", "captioned_images", "mmalign"}
    assert {one.name for one in specs if isinstance(one, LayoutSpec)} == {
        one for one, _, _ in ROWS.values()
    } | with_media


@pytest.mark.parametrize("layout", ["trl", "openai", "sharegpt", "ms_swift"])
def test_tools_calls_and_images_survive_a_layout(layout: str) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    turns = [
        said("user", [{"type": "image"}, {"type": "text", "text": "first?"}]),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {**said("assistant", "red"), "reasoning_content": "hm"},
        said("user", [{"type": "text", "text": "and "}, {"type": "image"}, {"type": "text", "text": "?"}]),
        said("assistant", "blue"),
    ]
    record = read_row({"messages": turns, "tools": TOOLS, "images": ["a.png", {"bytes": PNG}], "id": "x"})
    assert [part.media for message in record.responses[0].messages for part in message.content if part.media] == ["m2"]
    writer = build_writer(layout)
    (row,) = writer.write(record)
    assert writer.lost == {}
    assert read_row(row, layout=layout) == record


# -- rows with more than a conversation -------------------------------------------------------------------------------


def test_ultrafeedback_keeps_models_ratings_and_critiques() -> None:
    completions = [
        {
            "model": f"m{index}",
            "response": f"a{index}",
            "overall_score": score,
            "annotations": {"honesty": {"Rating": rating, "Rationale": "r"}},
            "critique": "c",
            "principle": "p",
        }
        for index, (score, rating) in enumerate([(7.5, "4"), (2.0, "N/A")])
    ]
    record = read_row({"instruction": "q", "completions": completions, "id": "x"})
    assert [response.model for response in record.responses] == ["m0", "m1"]
    assert record.ratings() == [7.5, 2.0]
    assert [(one.item, one.name, one.value) for one in record.scores[2:]] == [("r0", "honesty", 4.0)]
    writer = build_writer("ultrafeedback")
    (row,) = writer.write(record)
    assert writer.lost == {} and read_row(row) == record


@pytest.mark.parametrize(
    ("label", "order"), [(1.0, (("r0",), ("r1",))), (0.0, (("r1",), ("r0",))), (0.5, (("r0", "r1"),))]
)
def test_pick_a_pic(label: float, order: Any) -> None:
    row = {
        "caption": "a cat",
        "jpg_0": PNG,
        "jpg_1": {"bytes": PNG, "path": None},
        "label_0": label,
        "label_1": 1 - label,
    }
    record = read_row({**row, "best_image_uid": "u", "id": "x"})
    assert (recognise(row), record.prompt_text, record.labels[0].order) == ("pick_a_pic", "a cat", order)
    assert [response.messages[0].content[0].type for response in record.responses] == ["image", "image"]
    assert record.media[0].uri.startswith("data:image/png;base64,")
    (written,) = build_writer("pick_a_pic").write(record)
    assert read_row(written) == record


def test_pick_a_pic_without_a_verdict() -> None:
    row = {"caption": "a cat", "jpg_0": "a.jpg", "jpg_1": "b.jpg", "label_0": 0.5, "label_1": 0.5, "has_label": False}
    assert read_row(row).labels == ()
    assert write_rows_of(read_row(row), "pick_a_pic") == [row]


@pytest.mark.parametrize(("response", "role"), [("image", "assistant"), ("caption", "user")])
def test_a_caption_is_the_prompt_or_the_response(response: str, role: str) -> None:
    formats = Formats(chosen=[{"name": "captioned_images", "response": response}])
    row = {"id": "x", "image": "a.png", "caption": "a cat"}
    record = LayoutReader(formats).read(row, 0)
    (shown,) = [one for one in (*record.prompt, *record.responses[0].messages) if one.content[0].type == "image"]
    assert (shown.role, recognise(row)) == (role, "captioned_images")
    assert build_writer("captioned_images", response=response).write(record) == [row]


def test_rlaif_v_puts_the_image_before_the_question() -> None:
    row = {"question": "what?", "chosen": "a", "rejected": "b", "image": {"bytes": PNG, "path": "x.png"}}
    record = read_row({**row, "id": "x"})
    assert [part.type for part in record.prompt[0].content] == ["image", "text"]
    (written,) = build_writer("rlaif_v").write(record)
    assert read_row(written) == record


# -- what is refused, and what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"questoin": "q", "chosen": "a", "rejected": "b", "image": "i"},
            "questoin: unknown column; did you mean 'question'",
        ),
        ({"prompt": "q", "sytem": "s", "completion": "a"}, "sytem: unknown column; did you mean 'system'"),
        ({"foo": 1, "bar": 2}, "unknown format of rows: columns 'foo', 'bar'; known are .*trl"),
        ({"question": "q", "chosen": "a", "image": "i"}, "the nearest is rlaif_v, which also has 'rejected'"),
        ({"prompt": "q", "messages": SAID, "label": True, "completions": ["a"], "labels": [True]}, "x"),
        ({"system": 3, "prompt": "q", "completion": "a"}, "system: expected a string"),
        ({"system": "t", "messages": SAID}, "system: the messages begin with another system message"),
        (
            {"conversations": [spoken("alien", "q"), spoken("gpt", "a")]},
            r"conversations\[0\].from: unknown speaker \"alien\"",
        ),
        ({"conversations": [spoken("gpt", "a")]}, "conversations: no turn of a user before the first assistant turn"),
        ({"conversations": [{"from": "human", "value": 3}]}, r"conversations\[0\].value: expected a string"),
        ({"instruction": "", "output": "a"}, "instruction: expected a text"),
        ({"instruction": "q", "output": "a", "history": [["p"]]}, r"history\[0\]: expected two texts"),
        ({"conversations": SPOKEN, "kto_tag": "maybe"}, "kto_tag: expected true or false, got 'maybe'"),
        ({"messages": SAID, "rejected_response": "a"}, "rejected_response: the same as the answer"),
        (
            {"chosen": "\n\nHuman: q", "rejected": "\n\nHuman: q\n\nAssistant: b"},
            "chosen: expected a dialogue that ends",
        ),
        ({"prompt": "q", "completions": ["a"], "labels": []}, "labels: expected a list of 1"),
        ({"text": "once upon a time"}, "text: a text without a prompt has no place"),
        ({"caption": "c", "jpg_0": b"what", "jpg_1": PNG, "label_0": 1}, "jpg_0: unknown image format"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": float("nan")}, "margin: expected a number, got nan"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 10**400}, "margin: expected a number"),
        (
            {"prompt": "q", "chosen": [said("user", "p"), SAID[2]], "rejected": [said("user", "q"), SAID[2]]},
            "chosen: begins with a user turn and repeats the prompt, but not exactly",
        ),
    ],
)
def test_what_a_row_gets_wrong_is_named(row: Row, message: str) -> None:
    if message == "x":
        assert read_row(row).tree  # the largest set of columns decides
        return
    with pytest.raises(DataError, match=message):
        read_row(row)


def test_two_formats_that_fit_equally_well_are_named(tmp_path: Path) -> None:
    plugin = tmp_path / "other_format.py"
    plugin.write_text(
        "import mmalign\n"
        "class Other(mmalign.Layout):\n"
        "    def read(self, columns, name):\n"
        "        return mmalign.Record.from_text(columns['prompt'], id=name)\n"
        "@mmalign.hookimpl\n"
        "def register_formats():\n"
        "    return [mmalign.LayoutSpec(name='other', summary='s', target='other_format:Other',"
        " columns=(('prompt', 'completion'),))]\n"
    )
    formats = Formats(load_registry(files=[plugin]))
    with pytest.raises(DataError, match="columns 'prompt', 'completion' may be of the format other or trl; say which"):
        LayoutReader(formats).read({"prompt": "q", "completion": "a"}, 0)
    assert LayoutReader(formats).read({"prompt": "q", "chosen": "a", "rejected": "b"}, 0).prompt_text == "q"


@pytest.mark.parametrize(
    ("layout", "lost"),
    [
        ("trl", {"scores": 1, "responses": 1, "responses.model": 1}),
        ("sharegpt", {"scores": 1, "labels": 1, "responses": 1, "responses.model": 1}),
        ("mmalign", {}),
    ],
)
def test_what_a_layout_does_not_hold_is_counted(layout: str, lost: dict[str, int]) -> None:
    record = Record.from_text("q", ["a", "b", "c"], id="x")
    data = record.to_dict()
    data["labels"] = [{"kind": "pair", "order": [["r0"], ["r1"]]}]
    data["scores"] = [{"item": "r2", "name": "s", "level": "response", "value": 1.0}]
    data["responses"][0]["model"] = "m"
    writer = build_writer(layout)
    writer.write(Record.from_dict(data))
    assert dict(writer.lost) == lost


@pytest.mark.parametrize(
    ("record", "layout", "message"),
    [
        (Record.from_text("q <image>", ["a"], id="x"), "sharegpt", "holds the word <image>"),
        (Record.from_text("q", ["a\n\nHuman: b"], id="x"), "hh_rlhf", None),
        (
            read_row({"prompt": "q", "chosen": "\n\nHuman: x", "rejected": "b"}),
            "hh_rlhf",
            "at the beginning of a paragraph",
        ),
        (
            Record.from_text("q", ["a"], id="x").model_copy(update={"meta": '{"system": "s"}'}),
            "trl",
            "meta.system: has the name",
        ),
        (read_row({"messages": [*SAID, said("user", "r"), said("assistant", "b")]}), "alpaca", "expected one message"),
    ],
)
def test_what_would_not_come_back_is_refused(record: Record, layout: str, message: str | None) -> None:
    if message is None:
        assert write_rows_of(record, layout) == []  # no comparison, no row
        return
    with pytest.raises(DataError, match=message):
        write_rows_of(record, layout)
