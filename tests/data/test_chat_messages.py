"""Tools, tool calls, reasoning and template arguments: from chat messages to records, through files, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layout_rows import read_row, write_rows_of

from mmalign.config.data import DataConfig
from mmalign.data.records import Record
from mmalign.errors import DataError
from mmalign.sources.source import open_source
from mmalign.sources.writing import write_records, write_rows

TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "default": None}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": {"town": "Oslo"}}}
TURNS: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Weather in Oslo?"},
    {"role": "assistant", "tool_calls": [CALL], "reasoning_content": "I do not know."},
    {"role": "tool", "name": "get_weather", "tool_call_id": "c1", "content": "3 C"},
    {"role": "assistant", "content": "It is 3 degrees.", "mood": "calm"},
]
ROW = {"messages": TURNS, "tools": TOOLS, "chat_template_kwargs": {"enable_thinking": False}}


def test_a_dialogue_with_tools_is_kept_whole() -> None:
    record = read_row(ROW, 0)
    asked, answered, told = record.responses[0].messages
    assert [message.role for message in record.prompt] == ["developer", "user"]
    assert (asked.content, asked.reasoning_content) == ((), "I do not know.")
    assert (asked.tool_calls[0].id, asked.tool_calls[0].function.name) == ("c1", "get_weather")
    assert json.loads(asked.tool_calls[0].function.arguments) == {"town": "Oslo"}
    assert (answered.name, answered.tool_call_id, answered.text) == ("get_weather", "c1", "3 C")
    assert json.loads(told.extra or "") == {"mood": "calm"}
    assert (record.tool_schemas, record.template_arguments) == (TOOLS, {"enable_thinking": False})
    assert record.meta is None


def test_templates_get_the_arguments_as_an_object_and_servers_as_json() -> None:
    message = read_row(ROW, 0).responses[0].messages[0]
    assert message.chat_fields()["tool_calls"] == [CALL]
    (call,) = message.chat_fields(parsed=False)["tool_calls"]
    assert call["function"]["arguments"] == '{"town": "Oslo"}'


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
def test_records_with_tools_survive_their_files(name: str, tmp_path: Path) -> None:
    records = [read_row(ROW, 0), Record.from_text("q", ["a"], id="plain")]
    write_records(records, tmp_path / name)
    assert list(open_source(DataConfig(path=str(tmp_path / name)))) == records


def test_the_way_to_trl_and_back_loses_nothing() -> None:
    record = read_row(ROW, 0)
    (row,) = write_rows_of(record, "trl")
    back = read_row(row, 0)
    assert (back.prompt, back.responses[0].messages) == (record.prompt, record.responses[0].messages)
    assert (back.tools, back.chat_template_kwargs) == (record.tools, record.chat_template_kwargs)


def test_the_keys_that_a_table_adds_to_objects_are_dropped(tmp_path: Path) -> None:
    """Arrow gives every object of a column the keys of all others: the tool would get `unit: null`."""
    other = {"type": "function", "function": {"name": "convert", "unit": "C"}}
    plain = {"type": "function", "function": {"name": "get_weather"}}
    write_rows([{"prompt": "q", "tools": [plain]}, {"prompt": "r", "tools": [other]}], tmp_path / "rows.parquet")
    first, second = open_source(DataConfig(path=str(tmp_path / "rows.parquet")))
    assert (first.tool_schemas, second.tool_schemas) == ([plain], [other])


@pytest.mark.parametrize(
    ("turn", "expected"),
    [
        ({"function_call": {"name": "f", "arguments": "{}"}}, [{"name": "f", "arguments": {}}]),
        ({"tool_calls": [{"name": "f", "arguments": {"a": 1}}]}, [{"name": "f", "arguments": {"a": 1}}]),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{not"}}]}, [{"name": "f", "arguments": "{not"}]),
        ({"tool_calls": [{"function": {"name": "f"}}]}, [{"name": "f", "arguments": {}}]),
    ],
)
def test_ways_to_write_a_call(turn: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    record = read_row({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", **turn}]}, 0)
    calls = record.responses[0].messages[0].chat_fields()["tool_calls"]
    assert [call["function"] for call in calls] == expected


def test_the_weight_of_a_turn_and_other_names_of_reasoning() -> None:
    turns = [
        {"role": "user", "content": "q", "weight": 3},
        {"role": "assistant", "content": "a", "weight": 0, "thinking": "t"},
        {"role": "function", "name": "f", "content": "x"},
        {"role": "assistant", "content": "b", "reasoning": "r"},
    ]
    record = read_row({"messages": turns}, 0)
    first, tool, second = record.responses[0].messages
    assert (first.train, first.reasoning_content, tool.role, second.reasoning_content) == (0, "t", "tool", "r")
    assert json.loads(record.prompt[0].extra or "") == {"weight": 3}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "tools": {"name": "f"}}, "tools: expected a list of function schemas"),
        ({**ROW, "tools": ["f"]}, "tools: expected an object with the schema of a function each"),
        ({**ROW, "tools": "[{]"}, "tools: expected a list, or one as JSON"),
        ({**ROW, "chat_template_kwargs": [1]}, "chat_template_kwargs: expected an object of template arguments"),
        (
            {"messages": [TURNS[1], {"role": "assistant", "tool_calls": [{"function": "f"}]}]},
            r"tool_calls\[0\]: expected an object with a function's 'name'",
        ),
        (
            {"prompt": [TURNS[1], TURNS[2]], "completion": "a"},
            "prompt: its last message calls tools; expected their answers",
        ),
        (
            {"prompt": [{"role": "user", "content": "q", "tool_calls": [CALL]}]},
            r"prompt\[0\].tool_calls: only an assistant calls tools, got role 'user'",
        ),
        (
            {"prompt": "q", "completion": [{"role": "user", "content": "q?"}, {"role": "assistant", "content": "a"}]},
            r"completion: begins with a user turn and repeats the prompt, but not exactly",
        ),
    ],
)
def test_what_cannot_be_read_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_row(row, 0)


# -- the word <image> -------------------------------------------------------------------------------------------------


def shown(row: dict[str, Any]) -> list[str | None]:
    return [part.text or part.media for message in read_row(row, 0).prompt for part in message.content]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<image>\nWhich colour?", ["m1", "\nWhich colour?"]),
        ("Which colour has <image>?", ["Which colour has ", "m1", "?"]),
        ([{"role": "user", "content": [{"type": "text", "text": "What is <image>"}]}], ["What is ", "m1"]),
    ],
)
def test_the_word_image_is_a_placeholder_where_a_row_has_images(prompt: Any, expected: list[str]) -> None:
    assert shown({"prompt": prompt, "completion": "c", "images": ["a.png"]}) == expected


def test_without_images_the_word_is_a_word() -> None:
    assert shown({"prompt": "What is <image> in HTML?", "completion": "c"}) == ["What is <image> in HTML?"]


@pytest.mark.parametrize("count", [1, 3])
def test_words_and_parts_are_counted_together(count: int) -> None:
    content = [{"type": "image"}, {"type": "text", "text": "and <image>"}]
    row = {"prompt": [{"role": "user", "content": content}], "completion": "c", "images": ["a.png"] * count}
    with pytest.raises(DataError, match=rf"images: {count} images, but .* words <image>\); expected one each"):
        read_row(row, 0)
