"""Rows as ms-swift reads them: `messages` with a rejected response or a label, and the older `query` and `response`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmalign import DataError, Layout, Record
from mmalign_formats.alpaca import answer, read_instruction
from mmalign_formats.drafts import Draft, pair, read_flag, read_text, verdict
from mmalign_formats.media import Turn
from mmalign_formats.rows import (
    CONVERSATION,
    Messages,
    is_compared,
    iter_pairs,
    iter_targets,
    iter_verdicts,
    joined,
    require_text,
    write_media,
    write_messages,
    write_template,
    write_words,
)
from mmalign_formats.turns import add_system, join_prompt, read_message, read_turns, split_last, split_messages


class MsSwift(Layout):
    """Reads and writes ms-swift's rows; media are words in the text."""

    holds = CONVERSATION | {"labels"}

    def recognise(self, columns: Mapping[str, Any], strength: int) -> int:
        """Leaves conversations alone to the layout of OpenAI, which reads them alike."""
        return strength if strength > 1 else 0

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of a conversation, a comparison or a verdict."""
        turns = _read_dialogue(columns)
        if "rejected_messages" in columns:
            prompt, chosen = split_last(turns)
            return _compare(
                prompt, chosen, read_turns(columns["rejected_messages"], "rejected_messages"), columns, name
            )
        if "rejected_response" in columns:
            prompt, chosen = split_last(turns)
            rejected = read_message(columns["rejected_response"], "rejected_response")
            return _compare(prompt, chosen, rejected, columns, name)
        if "label" in columns:
            prompt, response = split_last(turns)
            return Draft(prompt, [response], labels=verdict(read_flag(columns, "label"))).finish(columns, name)
        prompt, response = split_messages(turns)
        return Draft(prompt, [response]).finish(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns rows for comparisons, else for verdicts, else for targets."""
        if is_compared(record):
            return list(_iter_comparisons(record))
        if record.labels:
            return [_write(record, response, label=good) for response, good in iter_verdicts(record)]
        return [_write(record, response) for response in iter_targets(record)]


def _read_dialogue(columns: Mapping[str, Any]) -> list[Turn]:
    if "messages" in columns:
        return add_system(read_turns(columns["messages"], "messages"), columns.get("system"))
    asked = {key: columns[key] for key in ("system", "history") if key in columns}
    return [*read_instruction({**asked, "instruction": columns["query"]}), *answer(read_text(columns, "response"))]


def _compare(
    prompt: list[Turn], chosen: list[Turn], rejected: list[Turn], columns: Mapping[str, Any], name: str
) -> Record:
    prompt, (other,) = join_prompt(prompt, {"rejected_response": rejected})
    if chosen == other:
        raise DataError("rejected_response: the same as the answer that is preferred to it")
    return Draft(prompt, [chosen, other], labels=pair()).finish(columns, name)


def _iter_comparisons(record: Record) -> Iterator[dict[str, Any]]:
    for chosen, rejected, _ in iter_pairs(record):
        row = _write(record, chosen)
        yield {**row, "rejected_response": require_text(rejected, "rejected_response")}


def _write(record: Record, response: Messages, **columns: Any) -> dict[str, Any]:
    messages = joined(record.prompt, response)
    written = write_messages(messages)
    for row, message in zip(written, messages, strict=True):
        if message.content:
            row["content"] = write_words(message)
    return {"messages": written, **columns, **write_template(record), **write_media(record, messages)}
