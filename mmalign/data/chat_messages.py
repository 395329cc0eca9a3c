"""Chat messages of other people's data as rows of a record, and tools and template arguments as JSON strings.

A chat message has `role` and `content`, and may have OpenAI's `tool_calls`, `tool_call_id`, `name` and `weight`, and
`reasoning_content`. Keys that nobody here knows are kept in `Message.extra`, and chat templates see them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mmalign.errors import DataError

_KNOWN = ("role", "name", "content", "train", "tool_calls", "tool_call_id", "reasoning_content", "extra")
_REASONING = ("reasoning", "thinking")


def message_from_chat(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Turns a chat message, whose content may be a string, into a row whose content is a list of parts.

    Raises:
        DataError: tool calls that are none; the message starts with the key.
    """
    given = {key: value for key, value in turn.items() if value is not None}
    row = {key: given.pop(key) for key in _KNOWN if key in given}
    if isinstance(row.get("content"), str):
        row["content"] = [{"type": "text", "text": row["content"]}]
    if row.get("role") == "function":  # OpenAI's name for tools until 2023
        row["role"] = "tool"
    calls = row.pop("tool_calls", None) or [given.pop(key) for key in ("function_call",) if key in given]
    if calls:
        row["tool_calls"] = _read_calls(calls)
        if turn.get("content") == "":  # as good as none
            del row["content"]
    for key in _REASONING:
        if isinstance(given.get(key), str) and "reasoning_content" not in row:
            row["reasoning_content"] = given.pop(key)
    if row.get("role") == "assistant" and "train" not in row and "weight" in given:
        row["train"] = given.pop("weight")
    return row | _keep_extra(given, row.pop("extra", None))


def read_tools(value: Any) -> str | None:
    """Returns what a column `tools` holds, a list of function schemas or such a list as JSON, as JSON; None if empty.

    Raises:
        DataError: anything else.
    """
    tools = _parse(value, "tools")
    if isinstance(tools, Mapping) or not isinstance(tools, Sequence) or isinstance(tools, str):
        raise DataError(f"tools: expected a list of function schemas, got {_short(value)}")
    if any(not isinstance(tool, Mapping) for tool in tools):
        raise DataError(f"tools: expected an object with the schema of a function each, got {_short(value)}")
    return _dump(tools) if tools else None


def read_template_arguments(value: Any) -> str | None:
    """Returns what a column `chat_template_kwargs` holds, an object or one as JSON, as JSON; None if empty.

    Raises:
        DataError: anything else.
    """
    arguments = _parse(value, "chat_template_kwargs")
    if not isinstance(arguments, Mapping):
        raise DataError(f"chat_template_kwargs: expected an object of template arguments, got {_short(value)}")
    return _dump(arguments) if arguments else None


def _read_calls(calls: Any) -> list[dict[str, Any]]:
    calls = _parse(calls, "tool_calls")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise DataError(f"tool_calls: expected a list of calls, got {_short(calls)}")
    return [_read_call(call, f"tool_calls[{place}]") for place, call in enumerate(calls)]


def _read_call(call: Any, where: str) -> dict[str, Any]:
    """Reads OpenAI's form, `{"function": {"name", "arguments"}}`, or the function alone."""
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise DataError(f"{where}: expected an object with a function's 'name' and 'arguments', got {_short(call)}")
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, str) else _dump({} if arguments is None else arguments)
    ids = {"id": str(call["id"])} if call.get("id") is not None else {}
    return {**ids, "type": "function", "function": {"name": function["name"], "arguments": written}}


def _keep_extra(given: Mapping[str, Any], extra: str | None) -> dict[str, Any]:
    if not given:
        return {} if extra is None else {"extra": extra}
    return {"extra": _dump({**(json.loads(extra) if extra else {}), **given})}


def _parse(value: Any, key: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else []
    except (ValueError, RecursionError):
        raise DataError(f"{key}: expected a list, or one as JSON, got {_short(value)}") from None


def _dump(value: Any) -> str:
    # Dates of Arrow tables have no JSON form; their text is better than nothing.
    return json.dumps(value, ensure_ascii=False, default=str)


def _short(value: Any) -> str:
    text = _dump(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
