"""Rows from records: messages as OpenAI and ShareGPT write them, media in columns, and which responses make a row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmalign import DataError, Message, Part, Record
from mmalign_formats.media import MEDIA_COLUMNS

Messages = tuple[Message, ...]
_OF_MESSAGES = ("tool_calls", "tool_call_id", "reasoning_content", "extra", "name")
MESSAGE_FIELDS = frozenset(f"{place}.{key}" for place in ("prompt", "responses.messages") for key in _OF_MESSAGES)
"""Fields of messages that rows of chat messages hold."""
CONVERSATION = MESSAGE_FIELDS | {"media", "tools", "chat_template_kwargs"}
"""What rows of chat messages with media beside them hold."""


def write_messages(messages: Iterable[Message], *, as_parts: bool = False) -> list[dict[str, Any]]:
    """Returns messages as OpenAI writes them.

    Args:
        as_parts: contents are lists of parts, those that are no text without what they show; else strings.
    """
    return [_write_message(message, as_parts=as_parts) for message in messages]


def _write_message(message: Message, *, as_parts: bool) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part.text} if part.type == "text" else {"type": part.type} for part in message.content
    ]
    content = parts if as_parts else message.text
    fields = message.chat_fields()
    return fields if message.tool_calls and not message.content else {**fields, "content": content}


def write_speakers(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Returns messages as ShareGPT writes them, media as words in the text.

    Raises:
        DataError: a text holds a word that stands for media, a message calls tools beside a text, or a tool is named.
    """
    return [_write_speaker(message) for message in messages]


def _write_speaker(message: Message) -> dict[str, Any]:
    rest = {key: value for key, value in message.chat_fields().items() if key not in ("role", "tool_calls")}
    if message.tool_calls:
        if message.content:
            raise DataError("a message calls tools and says something; ShareGPT's rows hold one of the two")
        if any(call.id is not None for call in message.tool_calls):
            raise DataError("a tool call has an id, which ShareGPT's rows do not hold")
        calls = [call["function"] for call in message.chat_fields()["tool_calls"]]
        value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
        return {"from": "function_call", "value": value, **rest}
    speaker = {"user": "human", "assistant": "gpt", "tool": "observation", "developer": "system"}.get(message.role)
    if message.role == "developer":
        raise DataError("a message of role developer; ShareGPT's rows have none")
    return {"from": speaker or message.role, "value": write_words(message), **rest}


def write_words(message: Message) -> str:
    """Returns the text of a message, with a word such as `<image>` where media stand."""
    if message.role == "assistant" and has_media([message]):
        raise DataError("an assistant's message shows or plays something, which such rows do not hold")
    return "".join(_write_word(part) for part in message.content)


def _write_word(part: Part) -> str:
    if part.type != "text":
        return f"<{part.type}>"
    found = next((kind for kind in MEDIA_COLUMNS if f"<{kind}>" in (part.text or "")), None)
    if found:
        raise DataError(f"a text holds the word <{found}>, which stands for media in such rows")
    return part.text or ""


def has_media(messages: Iterable[Message]) -> bool:
    """Returns whether a message shows or plays something."""
    return any(part.type != "text" for message in messages for part in message.content)


def write_media(record: Record, messages: Iterable[Message], single: bool = False) -> dict[str, Any]:
    """Returns the columns with the media of messages, in order: lists, or, with `single`, the only image."""
    uris = {media.mid: media.uri for media in record.media}
    columns: dict[str, list[str]] = {}
    listed = list(messages)
    for message in listed:
        for part in message.content:
            if part.type != "text":
                if part.media is None or part.type not in MEDIA_COLUMNS or part.start is not None:
                    raise DataError(f"a clip of a {part.type} has no place in such rows")
                columns.setdefault(MEDIA_COLUMNS[part.type][0], []).append(uris[part.media])
    for kind in (kind for kind, (column, _) in MEDIA_COLUMNS.items() if column in columns):
        if any(f"<{kind}>" in message.text for message in listed if message.role != "assistant"):
            raise DataError(f"a text holds the word <{kind}>, which stands for an item of {MEDIA_COLUMNS[kind][0]}")
    if not single:
        return dict(columns)
    if set(columns) - {"images"} or len(columns.get("images", ())) > 1:
        raise DataError("such rows hold at most one image")
    return {"image": columns["images"][0]} if columns else {}


def write_template(record: Record) -> dict[str, Any]:
    """Returns the columns that are for the chat template."""
    told = {"tools": record.tool_schemas, "chat_template_kwargs": record.template_arguments}
    return {name: value for name, value in told.items() if value}


def require_text(messages: Sequence[Message], what: str) -> str:
    """Returns the text of a single plain message; raises DataError if there is more to say than a text."""
    if len(messages) != 1 or has_media(messages) or set(messages[0].chat_fields()) != {"role"}:
        raise DataError(f"{what}: expected one message of text alone, which is all that such rows hold")
    return messages[0].text


def split_opening(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    """Splits off the system message, if there is one."""
    if messages and messages[0].role == "system":
        return require_text(messages[:1], "system"), messages[1:]
    return None, messages


# -- which responses make a row ---------------------------------------------------------------------------------------


def iter_pairs(record: Record) -> Iterator[tuple[Messages, Messages, float | None]]:
    """Yields chosen and rejected messages and the strength of every comparison of plain responses.

    Raises:
        DataError: a comparison is of items under other prompts, which no row can say.
    """
    for label in record.labels:
        items = [item for group in label.order for item in group]
        if label.kind != "unary" and any("@" in item or item.startswith("node:") for item in items):
            raise DataError(f"labels: {', '.join(items)} answer different prompts, which such rows cannot say")
    for chosen, rejected, strength in record.pair_indices():
        known = None if strength != strength else strength
        yield record.responses[chosen].messages, record.responses[rejected].messages, known


def iter_verdicts(record: Record) -> Iterator[tuple[Messages, bool]]:
    """Yields the messages of every response that is known to be desirable, or not."""
    for response, label in zip(record.responses, record.response_labels(), strict=True):
        if label in (0.0, 1.0):
            yield response.messages, label == 1.0


def iter_targets(record: Record) -> Iterator[Messages]:
    """Yields the messages of every response that supervised training imitates."""
    for response, target in zip(record.responses, record.targets(), strict=True):
        if target:
            yield response.messages


def is_compared(record: Record) -> bool:
    """Returns whether there is a comparison."""
    return any(label.kind != "unary" and len(label.order) > 1 for label in record.labels)


def joined(*columns: Iterable[Message]) -> list[Message]:
    """Joins the messages of several columns, in which the media of a row are counted."""
    return [message for column in columns for message in column]


def without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    """Drops columns without a value."""
    return {name: value for name, value in row.items() if value is not None}
