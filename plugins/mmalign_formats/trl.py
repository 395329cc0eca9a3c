"""Records from the columns that TRL's trainers read; `mmalign.data.trl_export` is the way back.

    prompt, chosen, rejected          preference, the prompt explicit; strings or chat messages
    chosen, rejected                  preference, the prompt implicit: it is what both begin with
    prompt, completion                supervised
    prompt, completion, label         unpaired: the label is true for a desirable completion
    messages                          supervised: all assistant turns are trained on
    prompt                            prompts to sample from

`images` (or `image`) fill the image placeholders in order: parts of type image, or the word `<image>` in a text that is
not the assistant's. `tools` and `chat_template_kwargs` are for the chat template, `margin` is the strength of the pair,
`id` the record's id; every other column goes to `meta`, where rewards find gold answers.
"""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from mmalign.data.chat_messages import message_from_chat, read_template_arguments, read_tools
from mmalign.data.records import SCHEMA, Record
from mmalign.errors import DataError, suggest

TRL_COLUMNS = ("prompt", "chosen", "rejected", "completion", "messages")

Turn: TypeAlias = dict[str, Any]
_SAYS = {"content", "tool_calls", "function_call"}
_USED = {*TRL_COLUMNS, "label", "images", "image", "margin", "id", "tools", "chat_template_kwargs"}
_WORD = "<image>"
"""What stands for an image in the texts of LLaVA's data and those made after them."""
_SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}
_PAYLOADS = ("image", "url", "path", "video", "audio")


def record_from_trl(row: Mapping[str, Any], index: int) -> Record:
    """Makes a record of a TRL row.

    Args:
        row: columns; a null is as good as a missing column.
        index: names the record `row-INDEX` if there is no column `id`.

    Raises:
        DataError: no known combination of columns, or a wrong value; the message starts with the column.
    """
    columns = {name: value for name, value in row.items() if value is not None}
    prompt, responses = _split_turns(columns)
    images = _Images(columns)
    images.add_placeholders([*prompt, *(turn for turns in responses for turn in turns)], prompt)
    data = {
        "id": _read_id(columns, index),
        "schema": SCHEMA,
        "prompt": [images.fill(turn) for turn in prompt],
        "responses": [
            {"rid": f"r{number}", "messages": [images.fill(turn) for turn in turns]}
            for number, turns in enumerate(responses)
        ],
        "labels": _read_labels(columns),
        "media": images.used,
        "tools": read_tools(columns["tools"]) if "tools" in columns else None,
        "chat_template_kwargs": _read_arguments(columns),
        "meta": _collect_meta(columns),
    }
    images.check_all_used()
    return Record.from_dict(data)


def _read_id(columns: Mapping[str, Any], index: int) -> str:
    return str(columns.get("id", f"row-{index}"))


def _read_arguments(columns: Mapping[str, Any]) -> str | None:
    return read_template_arguments(columns["chat_template_kwargs"]) if "chat_template_kwargs" in columns else None


def _collect_meta(columns: Mapping[str, Any]) -> str | None:
    extra = {name: value for name, value in columns.items() if name not in _USED}
    # Dates and bytes of Arrow tables have no JSON form; their text is better than nothing.
    return json.dumps(extra, ensure_ascii=False, default=str) if extra else None


def _read_labels(columns: Mapping[str, Any]) -> list[Turn]:
    if "chosen" in columns:
        return [{"kind": "pair", "order": [["r0"], ["r1"]], "strength": _read_margin(columns)}]
    if "completion" in columns and "label" in columns:
        label = columns["label"]
        if label not in (True, False):
            raise DataError(f"label: expected true or false, got {label!r}")
        return [{"kind": "unary", "order": [["r0"]], "strength": 1.0 if label else -1.0}]
    return []


def _read_margin(columns: Mapping[str, Any]) -> float | None:
    margin = columns.get("margin")
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
        raise DataError(f"margin: expected a number, got {margin!r}")
    return margin


# -- prompt and responses ---------------------------------------------------------------------------------------------


def _split_turns(columns: Mapping[str, Any]) -> tuple[list[Turn], list[list[Turn]]]:
    if "chosen" in columns or "rejected" in columns:
        return _split_preference(columns)
    if "completion" in columns:
        return _read_prompt(columns), [_read_turns(columns["completion"], "completion", "assistant")]
    if "messages" in columns:
        return _split_messages(_read_turns(columns["messages"], "messages", ""))
    _check_misspelt(columns)
    return _read_prompt(columns), []


def _check_misspelt(columns: Mapping[str, Any]) -> None:
    # A misspelt 'chosen' would turn preferences into bare prompts without a word.
    for name in columns:
        close = difflib.get_close_matches(name, _USED, n=1, cutoff=0.85)
        if close and close[0] not in columns:
            raise DataError(f"{name}: unknown column; did you mean {close[0]!r}? rename it, here or with 'columns'")


def _read_prompt(columns: Mapping[str, Any]) -> list[Turn]:
    if "prompt" not in columns:
        raise DataError(f"prompt: missing{suggest('prompt', columns)}")
    return _read_turns(columns["prompt"], "prompt", "user")


def _read_turns(value: Any, column: str, role: str) -> list[Turn]:
    """Reads a string, which is one turn of `role` (none if empty: only chat messages will do), or chat messages."""
    if isinstance(value, str) and role:
        return [{"role": role, "content": value}]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        text = "a string or " if role else ""
        raise DataError(f"{column}: expected {text}a list of messages, got {json.dumps(value, default=str)[:40]}")
    for place, turn in enumerate(value):
        if not isinstance(turn, Mapping) or "role" not in turn or not _SAYS.intersection(turn):
            got = ", ".join(map(repr, turn)) if isinstance(turn, Mapping) else repr(turn)[:40]
            expected = "an object with 'role' and 'content' (or 'tool_calls')"
            raise DataError(f"{column}[{place}]: expected {expected}, got {got}")
    # Arrow gives every message every key; a null means that there is none.
    return [{key: content for key, content in turn.items() if content is not None} for turn in value]


def _split_messages(turns: list[Turn]) -> tuple[list[Turn], list[list[Turn]]]:
    first = next((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), None)
    if not first:
        missing = "no assistant turn" if first is None else "no turn before the first assistant turn"
        raise DataError(f"messages: {missing}; expected a user turn and an assistant turn")
    return turns[:first], [turns[first:]]


def _split_preference(columns: Mapping[str, Any]) -> tuple[list[Turn], list[list[Turn]]]:
    for name, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if name not in columns:
            raise DataError(f"{name}: missing beside {other!r}{suggest(name, set(columns) - {other})}")
    if isinstance(columns["chosen"], str) != isinstance(columns["rejected"], str):
        raise DataError("chosen: expected two strings or two lists of messages as 'chosen' and 'rejected'")
    if "prompt" not in columns and isinstance(columns["chosen"], str):
        return _split_strings(columns["chosen"], columns["rejected"])
    sides = [_read_turns(columns[name], name, "assistant") for name in ("chosen", "rejected")]
    if "prompt" not in columns:
        return _split_conversations(*sides)
    prompt = _read_prompt(columns)
    # Some data sets give the prompt and repeat it in both sides.
    if all(side[: len(prompt)] == prompt and len(side) > len(prompt) for side in sides):
        sides = [side[len(prompt) :] for side in sides]
    return prompt, sides


def _split_strings(chosen: str, rejected: str) -> tuple[list[Turn], list[list[Turn]]]:
    shorter = min(len(chosen), len(rejected))
    shared = next((place for place in range(shorter) if chosen[place] != rejected[place]), shorter)
    # A prompt ends between words: " red" and " white" keep their space, "red" and "read" are not cut.
    while shared > 0 and not chosen[shared - 1].isspace():
        shared -= 1
    prompt = chosen[:shared].rstrip()
    if not prompt or not chosen[shared:] or not rejected[shared:]:
        raise DataError("prompt: missing, and 'chosen' and 'rejected' do not begin with a common one; add the column")
    sides = [[{"role": "assistant", "content": text[len(prompt) :]}] for text in (chosen, rejected)]
    return [{"role": "user", "content": prompt}], sides


def _split_conversations(chosen: list[Turn], rejected: list[Turn]) -> tuple[list[Turn], list[list[Turn]]]:
    longest = min(len(chosen), len(rejected)) - 1
    shared = next((place for place in range(longest) if chosen[place] != rejected[place]), longest)
    if not shared:
        raise DataError("prompt: missing, and 'chosen' and 'rejected' begin with different messages; add the column")
    return chosen[:shared], [chosen[shared:], rejected[shared:]]


# -- images -----------------------------------------------------------------------------------------------------------


class _Images:
    """The images of a row, handed out to the placeholders in order."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        given = columns.get("images", columns.get("image"))
        listed = given if isinstance(given, list | tuple) else [] if given is None else [given]
        self.used: list[Turn] = []
        self._count = len(listed)
        self._left: Iterator[str] = iter([read_image(image, f"images[{place}]") for place, image in enumerate(listed)])

    def add_placeholders(self, turns: Sequence[Turn], prompt: Sequence[Turn]) -> None:
        """Makes placeholders of the word `<image>`, and of nothing before the first user message, as TRL does.

        Raises:
            DataError: there are not as many placeholders as images.
        """
        if not self._count:
            return
        for turn in turns:
            if turn["role"] != "assistant":
                turn["content"] = [piece for part in _parts(turn) for piece in _split_words(part)]
        placeholders = sum(_is_image(part) for turn in turns for part in _parts(turn))
        if not placeholders:
            first = next((turn for turn in prompt if turn["role"] == "user"), prompt[0])
            first["content"] = [{"type": "image"}] * self._count + _parts(first)

    def fill(self, turn: Turn) -> Turn:
        """Returns the turn as a record's message, its image parts pointing to media."""
        row = message_from_chat(turn)
        parts = row.get("content")
        return row | ({"content": [self._fill_part(part) for part in parts]} if isinstance(parts, list) else {})

    def _fill_part(self, part: Any) -> Any:
        if not isinstance(part, Mapping):
            return part
        kept = {key: value for key, value in part.items() if value is not None}
        if not _is_image(part):
            return kept
        own = next((kept.pop(key) for key in _PAYLOADS if key in kept), None)
        uri = read_image(own, "image") if own is not None else next(self._left, None)
        if uri is None:
            raise DataError(
                f"images: {self._count} images, but more placeholders (parts of type image and words {_WORD}); "
                "expected one each"
            )
        mid = f"m{len(self.used) + 1}"
        self.used.append({"mid": mid, "type": "image", "uri": uri})
        return {**kept, "media": mid}

    def check_all_used(self) -> None:
        """Raises DataError if an image found no placeholder."""
        left = sum(1 for _ in self._left)
        if left:
            raise DataError(
                f"images: {self._count} images, but {self._count - left} placeholders (parts of type image and words "
                f"{_WORD}); expected one each"
            )


def _parts(turn: Turn) -> list[Any]:
    content = turn.get("content")
    if content is not None and not isinstance(content, str | list):
        raise DataError(f"content: expected a string or a list of parts, got {json.dumps(content, default=str)[:40]}")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _split_words(part: Any) -> list[Any]:
    """Splits a text at the words that stand for an image, which become parts of their own."""
    if not isinstance(part, Mapping) or part.get("type") != "text" or _WORD not in str(part.get("text")):
        return [part]
    pieces: list[Any] = []
    for place, text in enumerate(str(part["text"]).split(_WORD)):
        pieces += [{"type": "image"}] if place else []
        pieces += [{"type": "text", "text": text}] if text else []
    return pieces


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image"


def read_image(image: Any, place: str) -> str:
    """Returns the URI of an image: a path or URI as it is, embedded bytes as a `data:` URI.

    Raises:
        DataError: neither, e.g. a decoded image; the message starts with `place`.
    """
    if isinstance(image, Mapping):
        image = image.get("bytes") or image.get("path") or image.get("url")
    if isinstance(image, bytes):
        kind = next((name for signature, name in _SIGNATURES.items() if image.startswith(signature)), None)
        if kind is None:
            raise DataError(f"{place}: unknown image format; expected PNG, JPEG, GIF or WebP")
        return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
    if not isinstance(image, str) or not image:
        raise DataError(f"{place}: expected a path, a URI or bytes, got {type(image).__name__}")
    return image
