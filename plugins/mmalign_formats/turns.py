"""Chat messages in columns: OpenAI's `role` and `content`, ShareGPT's `from` and `value`, strings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign import DataError
from mmalign_formats.media import Turn, list_parts

_SAYS = {"content", "tool_calls", "function_call"}
_SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "observation": "tool",
    "tool_response": "tool",
    "tool": "tool",
}
"""The roles of the names that ShareGPT's data and those made after them have for speakers."""
_CALLS = ("function_call", "tool_call")
_SHOWN = 40


def read_turns(value: Any, column: str, role: str = "") -> list[Turn]:
    """Reads a string, which is one turn of `role` (if empty, only messages will do), or a list of messages.

    Raises:
        DataError: anything else; the message starts with the column.
    """
    if isinstance(value, str) and role:
        return [{"role": role, "content": value}]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        text = "a string or " if role else ""
        raise DataError(f"{column}: expected {text}a list of messages, got {_show(value)}")
    return [_read_message(turn, f"{column}[{place}]") for place, turn in enumerate(value)]


def read_message(value: Any, column: str) -> list[Turn]:
    """Reads an assistant's answer: a string, one message, or a list of them."""
    return read_turns([value] if isinstance(value, Mapping) else value, column, "assistant")


def speaks(value: Any) -> bool:
    """Returns whether a value is a list of messages with `from`, or one of them."""
    first = value[0] if isinstance(value, list | tuple) and value else value
    return isinstance(first, Mapping) and first.get("from") is not None


def _read_message(turn: Any, where: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise DataError(f"{where}: expected an object with 'role' and 'content', got {_show(turn)}")
    # Arrow gives every message every key; a null means that there is none.
    given = {key: content for key, content in turn.items() if content is not None}
    if "from" in given:
        return _read_speaker(given, where)
    if "role" not in given or not _SAYS.intersection(given):
        got = ", ".join(map(repr, given))
        raise DataError(f"{where}: expected an object with 'role' and 'content' (or 'tool_calls'), got {got}")
    return given


def _read_speaker(given: Mapping[str, Any], where: str) -> Turn:
    speaker, value = given["from"], given.get("value")
    role = _SPEAKERS.get(str(speaker).lower())
    if role is None:
        raise DataError(f"{where}.from: unknown speaker {_show(speaker)}; known: {', '.join(_SPEAKERS)}")
    if not isinstance(value, str):
        raise DataError(f"{where}.value: expected a string, got {_show(value)}")
    rest = {key: content for key, content in given.items() if key not in ("from", "value")}
    if speaker in _CALLS:
        return {**rest, "role": role, "tool_calls": _read_calls(value, where)}
    return {**rest, "role": role, "content": value}


def _read_calls(value: str, where: str) -> Any:
    try:
        calls = json.loads(value)
    except (ValueError, RecursionError):
        raise DataError(f"{where}.value: expected a tool call as JSON, got {_show(value)}") from None
    return calls if isinstance(calls, list) else [calls]


def split_messages(turns: list[Turn], column: str = "messages") -> tuple[list[Turn], list[Turn]]:
    """Splits a conversation before its first assistant turn.

    Raises:
        DataError: nothing stands on one of the sides.
    """
    first = next((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), None)
    if not first or all(turn["role"] in ("system", "developer") for turn in turns[:first]):
        missing = "no assistant turn" if first is None else "no turn of a user before the first assistant turn"
        raise DataError(f"{column}: {missing}; expected a user turn and an assistant turn")
    return turns[:first], turns[first:]


def split_last(turns: list[Turn], column: str = "messages") -> tuple[list[Turn], list[Turn]]:
    """Splits a conversation before its last turns of the assistant and of tools: what a preference is about."""
    end = len(turns)
    while end and turns[end - 1]["role"] in ("assistant", "tool"):
        end -= 1
    if not end or end == len(turns):
        missing = "no turn before the answer" if not end else "the last turn is not the assistant's"
        raise DataError(f"{column}: {missing}; expected a conversation that ends with an answer")
    return turns[:end], turns[end:]


def add_system(turns: list[Turn], system: Any, column: str = "system") -> list[Turn]:
    """Puts the content of a column `system` before the turns, unless they begin with the same.

    Raises:
        DataError: it is no text, or the turns begin with another system message.
    """
    if system is None or system == "":
        return turns
    if not isinstance(system, str):
        raise DataError(f"{column}: expected a string, got {_show(system)}")
    if turns and turns[0]["role"] in ("system", "developer"):
        if _same(turns[0], {"role": turns[0]["role"], "content": system}):
            return turns
        raise DataError(f"{column}: the messages begin with another system message; drop one of the two")
    return [{"role": "system", "content": system}, *turns]


def join_prompt(prompt: list[Turn], sides: Mapping[str, list[Turn]]) -> tuple[list[Turn], list[list[Turn]]]:
    """Takes a prompt out of the responses that repeat it, so that it is there once.

    Args:
        sides: responses by their columns. One that begins with an assistant turn is taken as it is.

    Returns:
        the prompt, with the system message that only the responses had, and the responses.

    Raises:
        DataError: a response begins with other turns than the prompt.
    """
    system, body = _split_system(prompt)
    rests = []
    for column, turns in sides.items():
        own_system, own = _split_system(turns)
        if len(own) > len(body) and all(map(_same, own, body)):
            if own_system and system and not _same(own_system[0], system[0]):
                raise DataError(f"{column}: begins with another system message than the prompt; drop one of the two")
            system = system or own_system
            rests.append(own[len(body) :])
        elif turns[0]["role"] == "assistant":
            rests.append(turns)
        else:
            raise DataError(
                f"{column}: begins with a {turns[0]['role']} turn and repeats the prompt, but not exactly; "
                "expected the turns of the prompt, or an assistant turn first"
            )
    return [*system, *body], rests


def split_conversations(sides: Mapping[str, list[Turn]]) -> tuple[list[Turn], list[list[Turn]]]:
    """Splits off the turns that all conversations begin with, which are the prompt.

    Raises:
        DataError: they begin with different turns.
    """
    first, *others = sides.values()
    longest = min(map(len, sides.values())) - 1
    shared = 0
    while shared < longest and all(_same(first[shared], other[shared]) for other in others):
        shared += 1
    # What differs first may be a turn of the user: then the sides answer different prompts.
    while shared and first[shared - 1]["role"] == "assistant" and first[shared]["role"] == "tool":
        shared -= 1
    if not shared:
        names = " and ".join(map(repr, sides))
        raise DataError(f"prompt: missing, and {names} begin with different messages; add the column")
    return first[:shared], [turns[shared:] for turns in sides.values()]


def _split_system(turns: list[Turn]) -> tuple[list[Turn], list[Turn]]:
    count = int(bool(turns) and turns[0]["role"] in ("system", "developer"))
    return turns[:count], turns[count:]


def _same(one: Turn, other: Turn) -> bool:
    """Returns whether two turns say the same, but for space around texts."""
    return bool(_normalise(one) == _normalise(other))


def _normalise(turn: Turn) -> Any:
    parts = [part.get("text", part) if isinstance(part, Mapping) else part for part in list_parts(turn)]
    texts = [part.strip() if isinstance(part, str) else part for part in parts]
    return turn["role"], texts, {key: one for key, one in turn.items() if key not in ("role", "content")}


def _show(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
