"""Text of others (data, models, servers, files) as it may be shown: what would steer a terminal is made visible.

A terminal obeys control characters (colours, titles, links, cursor), and readers are misled by characters that have no
width or turn the direction of what follows. `show_controls` is the only place that decides which ones; consoles of
`mmalign.terminal` apply it to everything that is printed with them.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

_JOINERS = "\u200c\u200d"
_INVISIBLE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1, DEL; line breaks and tabs have their own rule
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, fillers, Mongolian selectors
    f"\u200b{_JOINERS}\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb"  # width, direction, lines
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # half characters, tags
)
_HIDDEN = re.compile(f"[{_INVISIBLE}]")
_LINES = re.compile("[\n\t]")


def show_controls(text: str, *, lines: bool = True) -> str:
    r"""Replaces characters that steer a terminal or cannot be seen by visible ones.

    C0 and DEL become their pictures (`␛`), others their code point (`<U+202E>`). What stays: joiners between letters
    that need them, such as Arabic, Hindi and emoji.

    Args:
        lines: False to show line breaks and tabs, too, where a text has to stay on its line.

    >>> show_controls("\x1b]8;;https://x\x07here")
    '␛]8;;https://x␇here'
    >>> show_controls("user\u202egpj.exe"), show_controls("a\nb", lines=False)
    ('user<U+202E>gpj.exe', 'a␊b')
    """
    shown = _HIDDEN.sub(_show, text)
    return shown if lines else _LINES.sub(_picture, shown)


def dump_json(document: Any, indent: int | None = 2) -> str:
    """Writes a document as JSON that other programs read as it is, with the same characters escaped.

    >>> dump_json({"prompt": "é\u202e"}, indent=None)
    '{"prompt": "é\\\\u202e"}'
    """
    return _HIDDEN.sub(_escape, json.dumps(document, indent=indent, ensure_ascii=False))


def _show(match: re.Match[str]) -> str:
    char = match.group()
    if char in _JOINERS and _joins(match.string, match.start()):
        return char
    return _picture(match) if ord(char) < 32 or char == "\x7f" else f"<U+{ord(char):04X}>"


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    return "\u2421" if code == 127 else chr(0x2400 + code)


def _joins(text: str, place: int) -> bool:
    """Returns whether a joiner stands between two letters, marks or symbols that it shapes: none of them Latin."""
    if not 0 < place < len(text) - 1:
        return False
    return all(_is_shaped(text[near]) for near in (place - 1, place + 1))


def _is_shaped(char: str) -> bool:
    return char > "\u02ff" and unicodedata.category(char) in ("Lo", "Mn", "Mc", "So", "Sk")


def _escape(match: re.Match[str]) -> str:
    # JSON has escapes for UTF-16 units.
    char = match.group()
    if char > "\uffff":
        units = char.encode("utf-16-be")
        return "".join(f"\\u{int.from_bytes(units[start : start + 2]):04x}" for start in (0, 2))
    return f"\\u{ord(char):04x}"
