"""Conversations as OpenAI's fine-tuning takes them: `messages`, and `input` with two outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmalign import DataError, Layout, Record
from mmalign_formats.drafts import Draft, pair
from mmalign_formats.rows import (
    CONVERSATION,
    has_media,
    is_compared,
    iter_pairs,
    iter_targets,
    joined,
    write_media,
    write_messages,
    write_template,
)
from mmalign_formats.turns import add_system, read_message, read_turns, split_messages

_OUTPUTS = ("preferred_output", "non_preferred_output")
_INPUT = ("messages", "tools")


class OpenAI(Layout):
    """Reads and writes OpenAI's rows; in `messages` all assistant turns are trained on."""

    holds = CONVERSATION | {"labels"}

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of a conversation or of a preference."""
        if "messages" in columns:
            turns = add_system(read_turns(columns["messages"], "messages"), columns.get("system"))
            prompt, response = split_messages(turns)
            return Draft(prompt, [response]).finish(columns, name)
        given = columns["input"]
        if not isinstance(given, Mapping):
            raise DataError("input: expected an object with messages")
        unknown = [key for key, value in given.items() if key not in _INPUT and value is not None]
        if unknown and unknown != ["parallel_tool_calls"]:
            raise DataError(f"input.{unknown[0]}: unknown key; known: {', '.join(_INPUT)}")
        prompt = add_system(read_turns(given.get("messages"), "input.messages"), columns.get("system"))
        sides = [read_message(columns[side], side) for side in _OUTPUTS]
        tools = {"tools": given["tools"]} if given.get("tools") else {}
        return Draft(prompt, sides, labels=pair()).finish({**columns, **tools}, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a preference for every comparison, else a conversation for every target."""
        return list(_iter_preferences(record) if is_compared(record) else _iter_conversations(record))


def _iter_preferences(record: Record) -> Iterator[dict[str, Any]]:
    for chosen, rejected, _ in iter_pairs(record):
        messages = joined(record.prompt, chosen, rejected)
        parts = has_media(messages)
        template = write_template(record)
        tools = {"tools": template.pop("tools")} if "tools" in template else {}
        yield {
            "input": {"messages": write_messages(record.prompt, as_parts=parts), **tools},
            "preferred_output": write_messages(chosen, as_parts=parts),
            "non_preferred_output": write_messages(rejected, as_parts=parts),
            **template,
            **write_media(record, messages),
        }


def _iter_conversations(record: Record) -> Iterator[dict[str, Any]]:
    for response in iter_targets(record):
        messages = joined(record.prompt, response)
        row = {"messages": write_messages(messages, as_parts=has_media(messages))}
        yield {**row, **write_template(record), **write_media(record, messages)}
