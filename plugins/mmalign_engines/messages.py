"""Prompts as the messages of a chat request; images travel with them as PNG."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from mmalign import DataError, Media, MediaLimits, Message, Part, Record, open_image


def chat_messages(record: Record, limits: MediaLimits) -> list[dict[str, Any]]:
    """Writes the prompt of a record for a server: a text, or parts where a message shows an image.

    Raises:
        DataError: it has a part that is neither text nor image.
        MediaError: an image cannot be read.
    """
    known = {media.mid: media for media in record.media}
    return [
        {**message.chat_fields(parsed=False), "content": _write_content(message, record, known, limits)}
        for message in record.prompt
    ]


def _write_content(message: Message, record: Record, known: dict[str, Media], limits: MediaLimits) -> Any:
    if all(part.type == "text" for part in message.content):
        return message.text
    return [_write_part(part, f"record {record.id!r}", known, limits) for part in message.content]


def _write_part(part: Part, where: str, known: dict[str, Media], limits: MediaLimits) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "text": part.text}
    if part.type != "image":
        raise DataError(f"{where}: it has an {part.type} part, but the engine sends text and images")
    content = BytesIO()
    open_image(known[str(part.media)], where=where, limits=limits).save(content, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": uri}}
