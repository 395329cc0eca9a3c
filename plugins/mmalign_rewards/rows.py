"""Several numbers for one response: what a scorer gave, by name or in order, as the engine reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf, nan
from typing import Any

from mmalign import RequestFailed


def order_row(row: Any, names: Sequence[str]) -> list[Any]:
    """Puts the numbers of one response into the order of `names`.

    Args:
        row: a mapping with at least these names, or one number for each as a list, tuple, array or tensor.

    Raises:
        ValueError: a name is missing, or there are not as many numbers.

    >>> order_row({"verbose": 2, "helpful": 1, "why": "..."}, ["helpful", "verbose"])
    [1, 2]
    """
    if isinstance(row, Mapping) and all(name in row for name in names):
        return [row[name] for name in names]
    values = row.tolist() if hasattr(row, "tolist") else row
    if isinstance(values, (list, tuple)) and len(values) == len(names):
        return list(values)
    raise ValueError(f"expected numbers for {', '.join(names)}, got {shorten(row)}")


def read_row(row: Any, names: Sequence[str]) -> list[float] | RequestFailed:
    """Reads the numbers of one response out of decoded JSON, null as NaN, or says why there are none."""
    try:
        values = order_row(row, names)
    except ValueError as error:
        return RequestFailed(str(error))
    numbers = [nan if value is None else read_number(value) for value in values]
    failures = [number for number in numbers if isinstance(number, RequestFailed)]
    return failures[0] if failures else [number for number in numbers if isinstance(number, float)]


def read_number(value: Any) -> float | RequestFailed:
    """Reads one number out of decoded JSON, or says why it is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or isinf(value):
        return RequestFailed(f"expected a finite number as the score, got {shorten(value)}")
    return float(value)


def shorten(value: Any) -> str:
    """Writes a value for a message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
