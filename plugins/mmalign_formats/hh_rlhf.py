"""Anthropic's HH-RLHF: two dialogues as strings, with `Human:` and `Assistant:` before the turns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign import DataError, Layout, Message, Record
from mmalign_formats.drafts import Draft, pair, read_text
from mmalign_formats.media import Turn
from mmalign_formats.rows import iter_pairs, require_text
from mmalign_formats.turns import split_conversations

_SIDES = ("chosen", "rejected")
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_NAMES = {"user": "Human", "assistant": "Assistant"}


class HhRlhf(Layout):
    """Reads and writes HH-RLHF's strings."""

    holds = frozenset({"labels"})

    def recognise(self, columns: Mapping[str, Any], strength: int) -> int:
        """Returns one more than for other preferences without a prompt if both sides begin with a human."""
        sides = [columns.get(side) for side in _SIDES]
        spoken = all(isinstance(side, str) and side.lstrip().startswith("Human:") for side in sides)
        return strength + 1 if strength and spoken and "prompt" not in columns else 0

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of a comparison; what both dialogues begin with is the prompt."""
        sides = {side: _read_dialogue(read_text(columns, side), side) for side in _SIDES}
        prompt, responses = split_conversations(sides)
        return Draft(prompt, responses, labels=pair()).finish(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a row for every comparison."""
        return [
            {side: _write_dialogue((*record.prompt, *turns)) for side, turns in zip(_SIDES, sides, strict=True)}
            for *sides, _ in iter_pairs(record)
        ]


def _read_dialogue(text: str, side: str) -> list[Turn]:
    # The first turn of some rows has no line breaks before it.
    opened = text if text.startswith("\n\n") else f"\n\n{text.lstrip()}"
    before, *pieces = _SPEAKER.split(opened)
    if before or not pieces:
        raise DataError(f"{side}: expected a dialogue that begins with 'Human:', got {text[:40]!r}")
    turns = [
        {"role": _ROLES[speaker], "content": said.removeprefix(" ")}
        for speaker, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    if turns[-1]["role"] != "assistant":
        raise DataError(f"{side}: expected a dialogue that ends with the assistant's turn")
    return turns


def _write_dialogue(messages: Sequence[Message]) -> str:
    pieces = []
    for message in messages:
        if message.role not in _NAMES:
            raise DataError(f"prompt: a turn of role {message.role}; HH-RLHF's dialogues have a human and an assistant")
        text = require_text([message], message.role)
        if _SPEAKER.search(f"\n\n{text}"):
            raise DataError("a text holds 'Human:' or 'Assistant:' at the beginning of a paragraph")
        pieces.append(f"\n\n{_NAMES[message.role]}:{f' {text}' if text else ''}")
    return "".join(pieces)
