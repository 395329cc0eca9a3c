"""JSON of unknown origin: whatever is wrong with it is one DataError.

Legal JSON may still be more than Python, UTF-8 or a tokenizer can hold: half of a surrogate pair, an integer of
thousands of digits, lists in lists in lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmalign.errors import DataError

_MAY_HOLD_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_SHOWN = 40
DEEPEST = 100
"""Levels of lists and objects inside each other that are read."""


def parse_json(text: str) -> Any:
    """Parses one JSON value.

    Raises:
        DataError: it is not JSON, with the column where it breaks; or it holds what cannot be kept.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON at column {error.colno}: {error.msg}; expected one object a line") from None
    except RecursionError:
        raise DataError("not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise DataError(f"not valid JSON: {str(error).split(';')[0]}; write long numbers as strings") from None
    # What can be parsed may still be too deep for whatever walks through it later.
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(value):
        raise DataError(f"not valid JSON: nested too deeply, more than {DEEPEST} levels")
    if _MAY_HOLD_SURROGATE.search(text):
        require_unicode(value)
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True


def require_unicode(value: Any) -> None:
    """Raises DataError, with the place in `value`, where a text holds half of a surrogate pair."""
    for place, text in _iter_texts(value, ""):
        # Most texts are ASCII, which Python knows without looking.
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                half = f"\\u{ord(text[error.start]):04x}"
                reason = f"{half} at character {error.start + 1} is half of a surrogate pair; the text was cut there"
                raise DataError(f"{place}: {reason}" if place else reason) from None


def _iter_texts(value: Any, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield f"{place}: key" if place else "key", str(key)
            yield from _iter_texts(one, f"{place}.{readable(key)}" if place else readable(key))
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _iter_texts(one, f"{place}[{index}]")


def dump_json(value: Any) -> str:
    """Returns `value` as JSON; what JSON has no form for, e.g. dates and bytes, as its text.

    Raises:
        DataError: it is nested too deeply, or holds an integer of thousands of digits.
    """
    try:
        text = json.dumps(_finite(value), ensure_ascii=False, default=str)
        text.encode()
        return text
    except UnicodeEncodeError:
        require_unicode(value)
        raise DataError("holds half of a surrogate pair") from None
    except RecursionError:
        raise DataError("nested too deeply to be written as JSON") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"cannot be written as JSON: {error}") from None


def _finite(value: Any) -> Any:
    """Replaces NaN and infinities, which JSON does not have, by null: both mean that there is no number."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def readable(text: object) -> str:
    """Returns text that can be written as UTF-8: what cannot be is shown escaped."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def shorten(value: Any) -> str:
    """Returns the beginning of a value as JSON, for messages; never raises."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError):
        text = f"a {type(value).__name__} that JSON cannot hold"
    text = readable(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
