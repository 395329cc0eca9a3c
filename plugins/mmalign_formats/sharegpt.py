"""ShareGPT's conversations: `conversations` of messages with `from` and `value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign import Layout, Record
from mmalign_formats.drafts import Draft
from mmalign_formats.rows import CONVERSATION, iter_targets, joined, write_media, write_speakers, write_template
from mmalign_formats.turns import add_system, read_turns, split_messages


class ShareGPT(Layout):
    """Reads and writes ShareGPT's rows; all turns of the assistant are trained on."""

    holds = CONVERSATION

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of a conversation."""
        prompt, response = split_messages(read_conversation(columns), "conversations")
        return Draft(prompt, [response]).finish(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a conversation for every target."""
        rows = []
        for response in iter_targets(record):
            messages = joined(record.prompt, response)
            row = {"conversations": write_speakers(messages), **write_template(record)}
            rows.append({**row, **write_media(record, messages)})
        return rows


def read_conversation(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reads the conversation of a row, with its system message."""
    column = "conversations" if "conversations" in columns else "conversation"
    return add_system(read_turns(columns[column], column), columns.get("system"))
