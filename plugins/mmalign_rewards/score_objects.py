"""Scores out of JSON objects in an answer: the last one that has them all, if nothing behind it could change it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmalign import RequestFailed
from mmalign_rewards.rows import read_row
from mmalign_rewards.score_lines import Scale, check_scale

_Found = tuple[dict[str, Any], int, int]
"""An object, and where it starts and ends."""


def read_score_object(text: str, names: Sequence[str], scale: Scale | None = None) -> list[float] | RequestFailed:
    """Reads one score for each name, or says why there is none.

    Args:
        text: an answer without its reasoning; the object may stand in prose, in a code fence or in another object.
        scale: lowest and highest score that was asked for; None for any number. null is NaN.

    >>> read_score_object('So: {"clear": 7, "brief": 2.5}', ["clear", "brief"])
    [7.0, 2.5]
    """
    objects = list(_iter_objects(text))
    for place in reversed(range(len(objects))):
        value, start, end = objects[place]
        holders = list(_iter_holders(value, names))
        if holders:
            rest = _cut_out(text, end, objects[place + 1 :])
            if len(holders) > 1 or _is_open(text[:start]) or _could_change(rest, names):
                break
            return _check_row(read_row(holders[0], names), scale)
    return RequestFailed(f"no score in {text[-80:]!r}")


def _check_row(row: list[float] | RequestFailed, scale: Scale | None) -> list[float] | RequestFailed:
    if isinstance(row, RequestFailed):
        return row
    checked = [score if score != score else check_scale(score, scale) for score in row]
    failures = [one for one in checked if isinstance(one, RequestFailed)]
    return failures[0] if failures else row


def _iter_objects(text: str) -> Iterator[_Found]:
    """Yields the outermost JSON objects of a text."""
    decoder = json.JSONDecoder(object_pairs_hook=_build_object)
    start = text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield value, start, end
        start = text.find("{", end)


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a dictionary; a name that stands twice has the list of its values, which is no number."""
    names = [name for name, _ in pairs]
    if len(set(names)) == len(names):
        return dict(pairs)
    return {name: [value for other, value in pairs if other == name] for name in names}


def _iter_holders(value: Any, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields what has all names: the object itself, else those among its values that do."""
    if isinstance(value, Mapping):
        if all(name in value for name in names):
            yield dict(value)
            return
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _iter_holders(one, names)


def _cut_out(text: str, start: int, objects: Sequence[_Found]) -> str:
    """Returns what stands from `start` on beside later objects, which hold none of the scores."""
    pieces = []
    for _, begin, end in objects:
        pieces.append(text[start:begin])
        start = end
    return " ".join([*pieces, text[start:]])


def _is_open(before: str) -> bool:
    """Returns whether an object that stands further on may be part of one that is not whole."""
    return before.count("{") > before.count("}")


def _could_change(rest: str, names: Sequence[str]) -> bool:
    return "{" in rest or any(one.isnumeric() for one in rest) or any(name in rest for name in names)
