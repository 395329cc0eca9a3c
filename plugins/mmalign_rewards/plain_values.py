"""What a function of the user's returned, as numbers, texts, lists and mappings: read alike in whatever process it ran.

A process sends these values as JSON, so nothing that a worker says is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice
from numbers import Real
from typing import Any

LONGEST = 100_000
"""Values that are read of a generator, which may never end."""

_UNREADABLE = "\0unreadable"


class Unreadable:
    """Something that is no score; shown as it showed itself."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def to_plain(value: Any) -> Any:
    """Converts what a function returned: arrays, tensors and generators become lists, every number a Python number.

    >>> to_plain((x / 2 for x in (1, 2)))
    [0.5, 1.0]
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): to_plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple, Iterator)):
        return [to_plain(one) for one in (islice(value, LONGEST) if isinstance(value, Iterator) else value)]
    if isinstance(value, (Real, Decimal)):
        return float(value)
    return Unreadable(f"{value!r:.100}")


def encode(value: Any) -> bytes:
    """Writes what `to_plain` gives as JSON."""
    return json.dumps(value, default=lambda one: {_UNREADABLE: one.text}).encode()


def decode(content: bytes) -> Any:
    """Reads what `encode` wrote; raises ValueError for anything else."""
    return json.loads(content, object_hook=_restore)


def _restore(value: dict[str, Any]) -> Any:
    return Unreadable(str(value[_UNREADABLE])) if _UNREADABLE in value else value
