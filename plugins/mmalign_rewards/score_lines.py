"""One score out of free text, by a strict grammar: what is not sure is no score.

A score line is `Score: 7`, with or without a scale beside it: `**Score (0-10):** 7`, `Final score: 7/10`, `Score: 7 out
of 10`. The last one counts, if nothing behind it could change it. A range, another scale than the one that was asked
for, a number with something behind it: no score.
"""

# ruff: noqa: RUF001 (dashes and quotes that look alike are what this is about)

from __future__ import annotations

import re
import unicodedata

from mmalign import RequestFailed

Scale = tuple[float, float]

_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_DECORATION = str.maketrans(dict.fromkeys("*_`#\"'“”‘’", " ") | {"：": ":", "／": "/", "（": "(", "）": ")"})
_MINUS = str.maketrans(dict.fromkeys("−‐‑﹣－", "-") | dict.fromkeys("‒—―", "–"))
_SENTENCE_END = re.compile(r"[\r\n\u2028\u2029]+|(?<=[.!?;])\s+")
_MENTION = re.compile(r"scor", re.I)
_WORDS = "zero|one|two|three|four|five|six|seven|eight|nine|ten|half|hundred"
_NUMBER_WORD = re.compile(rf"\b(?:{_WORDS})\b", re.I)


def _bounds_pattern(place: str, words: str) -> str:
    low, high = (rf"(?P<{bound}_{place}>-?{_NUMBER})" for bound in ("low", "high"))
    return rf"{words}{low}\s*(?:-|–|to|and|\.\.\.?|…)\s*{high}"


def _top_pattern(place: str) -> str:
    return rf"(?:out\s+of|of|/|max(?:imum)?\.?:?)\s*(?P<top_{place}>{_NUMBER})"


def _scale_pattern(place: str) -> str:
    """A scale in words or signs: `0-10`, `from 0 to 10`, `on a scale of 1 to 5`, `out of 10`, `/10`."""
    words = r"(?:(?:on\s+a\s+|a\s+)?(?:scale|range)\s*:?\s*)?(?:of\s+|from\s+|between\s+)?"
    return rf"(?:{_bounds_pattern(place, words)}|{_top_pattern(place)})(?:\s*(?:points?|pts))?"


def _scale_behind(place: str) -> str:
    """A scale behind a score, where a bare range would be one of scores: `out of 10`, `on a scale from 0 to 10`."""
    words = r"on\s+a\s+(?:scale|range)\s+(?:of|from|between)\s+"
    return rf"(?:{_bounds_pattern(place, words)}|{_top_pattern(place)})(?:\s*(?:points?|pts))?"


def _bracketed(pattern: str) -> str:
    return rf"[(\[{{]\s*{pattern}\s*[)\]}}]"


_LINE = re.compile(
    r"[\s>•·+|-]*(?:(?:so|thus|hence|therefore|and|my|the|its|final|overall|total|resulting),?\s+)*score\b\s*"
    rf"(?:(?:{_bracketed(_scale_pattern('a'))}|,?\s*{_scale_pattern('b')}\s*(?=[:=–]|is\b))\s*)?"
    r"(?P<separator>(?:[:=]|=>|->|→|\s–\s|\bis\b|\bof\b)\s*:?|(?<=[\s)\]}]))\s*"
    rf"(?:{_bracketed(_scale_pattern('c'))}\s*)?"
    rf"(?P<open>[(\[]{{0,2}})\s*(?P<number>[+-]?{_NUMBER})(?!\.?\d)"
    rf"(?:\s*{_scale_behind('d')})?\s*(?P<close>[)\]]{{0,2}})"
    rf"(?:\s*(?:{_bracketed(_scale_pattern('e'))}|,?\s*{_scale_behind('f')}))?"
    r"(?:\s*(?:points?|pts))?\s*[.!;]*\s*",
    re.I,
)
_ELEMENT = re.compile(rf"\s*<score>\s*(?P<number>[+-]?{_NUMBER})\s*</score>\s*", re.I)


def read_score_line(text: str, scale: Scale | None = None) -> float | RequestFailed:
    """Reads the last score line of a text, or says why there is no sure one.

    Args:
        scale: lowest and highest score that was asked for; None if any number may stand there, on any scale.

    >>> read_score_line("Clear, if dry.\\nScore (0-10): 7", (0, 10))
    7.0
    >>> read_score_line("Score: 7-8", (0, 10))
    RequestFailed("no score in 'Score: 7-8'")
    """
    sentences = [one for one in _SENTENCE_END.split(_simplify(text)) if one.strip()]
    nothing = RequestFailed(f"no score in {text[-80:]!r}")
    for sentence in reversed(sentences):
        found = _LINE.fullmatch(sentence) or _ELEMENT.fullmatch(sentence)
        if found:
            return _read_match(found, scale) if _is_sure(found) else nothing
        if _could_change(sentence):
            return nothing
    return nothing


def check_scale(score: float, scale: Scale | None) -> float | RequestFailed:
    """Returns a score that is on the scale; for another one, what is wrong."""
    if scale is None or scale[0] <= score <= scale[1]:
        return score
    return RequestFailed(f"expected a score from {scale[0]:g} to {scale[1]:g}, got {score:g}")


def _simplify(text: str) -> str:
    digits = (str(unicodedata.decimal(one)) if one.isdecimal() else one for one in text)
    return "".join(digits).translate(_MINUS).translate(_DECORATION)


def _could_change(sentence: str) -> bool:
    """Returns whether a sentence behind a score may correct it: it names a number, or a score."""
    numbers = any(one.isnumeric() for one in sentence) or _NUMBER_WORD.search(sentence)
    return bool(numbers or _MENTION.search(sentence))


def _is_sure(found: re.Match[str]) -> bool:
    groups = found.groupdict()
    if len(groups.get("open") or "") != len(groups.get("close") or ""):
        return False
    # Without a colon or the like, a minus sign may be a dash.
    return found["number"][0] not in "+-" or bool(groups.get("separator", ":").strip(" –"))


def _read_match(found: re.Match[str], scale: Scale | None) -> float | RequestFailed:
    score = float(found["number"])
    named = {name: float(value) for name, value in found.groupdict().items() if value and name[-2:-1] == "_"}
    for place in {name[-1] for name in named}:
        low, high = named.get(f"low_{place}"), named.get(f"high_{place}", named.get(f"top_{place}"))
        if scale is not None and (high != scale[1] or low not in (None, scale[0])):
            return RequestFailed(f"expected a score from {scale[0]:g} to {scale[1]:g}, got {found[0].strip()!r}")
        if (high is not None and score > high) or (low is not None and score < low):
            return RequestFailed(f"no score in {found[0].strip()!r}: it is not on its own scale")
    return check_scale(score, scale)
