"""Alpaca's instructions: `instruction`, `input` and `output`, with `system` and `history` before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign import DataError, Layout, Record
from mmalign_formats.drafts import Draft, pair, read_text
from mmalign_formats.media import Turn
from mmalign_formats.rows import (
    Messages,
    iter_targets,
    joined,
    require_text,
    split_opening,
    without_nulls,
    write_media,
    write_template,
    write_words,
)
from mmalign_formats.turns import add_system


class Alpaca(Layout):
    """Reads and writes Alpaca's rows. An `output` of two texts is a preference, the better one first."""

    holds = frozenset({"media", "tools", "chat_template_kwargs"})

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Makes a record of an instruction and its output."""
        prompt, output = read_instruction(columns), columns["output"]
        if isinstance(output, list | tuple) and len(output) == 2 and all(isinstance(one, str) for one in output):
            return Draft(prompt, [answer(one) for one in output], labels=pair()).finish(columns, name)
        return Draft(prompt, [answer(read_text(columns, "output"))]).finish(columns, name)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns a row for every target."""
        rows = []
        for response in iter_targets(record):
            row = {**write_instruction(record.prompt), "output": require_text(response, "output")}
            rows.append({**row, **write_template(record), **write_media(record, joined(record.prompt, response))})
        return rows


def read_instruction(columns: Mapping[str, Any]) -> list[Turn]:
    """Reads the prompt of a row: system, history, instruction and, after a line break, its input."""
    text = "\n".join(read_text(columns, key) for key in ("instruction", "input") if columns.get(key))
    if not text:
        raise DataError("instruction: expected a text, or one in 'input'")
    history = [turn for place, turns in enumerate(_list(columns.get("history"))) for turn in _read_past(turns, place)]
    return add_system([*history, {"role": "user", "content": text}], columns.get("system"))


def answer(text: str) -> list[Turn]:
    """Returns a text as the assistant's turn."""
    return [{"role": "assistant", "content": text}]


def write_instruction(prompt: Messages) -> dict[str, Any]:
    """Returns the columns of a prompt; raises DataError if they do not hold it."""
    system, turns = split_opening(prompt)
    roles = [turn.role for turn in turns]
    if roles != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        raise DataError(f"prompt: its turns are {', '.join(roles)}; such rows hold a user and the assistant in turns")
    if any(set(turn.chat_fields()) != {"role"} for turn in turns):
        raise DataError("prompt: such rows hold texts alone, no tool calls, names or reasoning")
    texts = [write_words(turn) for turn in turns]
    history = [[texts[place], texts[place + 1]] for place in range(0, len(texts) - 1, 2)]
    return without_nulls({"system": system, "history": history or None, "instruction": texts[-1]})


def _list(value: Any) -> Sequence[Any]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise DataError(f"history: expected a list of pairs of texts, got {type(value).__name__}")
    return value


def _read_past(turns: Any, place: int) -> list[Turn]:
    if not isinstance(turns, list | tuple) or len(turns) != 2 or not all(isinstance(one, str) for one in turns):
        raise DataError(f"history[{place}]: expected two texts, what was asked and what was answered")
    return [{"role": "user", "content": turns[0]}, *answer(turns[1])]
