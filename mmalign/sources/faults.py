"""Bad rows by the kind of their fault, so that a thousand rows with one mistake are one line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_VARYING = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")
_PLACES = 3
_KINDS = 1000


@dataclass
class _Kind:
    first: str
    places: list[str]
    count: int = 1


@dataclass
class FaultList:
    """Counts bad rows; what is kept of them does not grow with their number.

    Attributes:
        count: of all bad rows.
    """

    count: int = 0
    _kinds: dict[str, _Kind] = field(default_factory=dict)
    _others: int = 0

    def add(self, place: str, reason: str) -> None:
        """Adds a bad row; reasons that differ only in names and numbers are of one kind."""
        self.count += 1
        kind = _VARYING.sub("...", reason)
        if kind in self._kinds:
            found = self._kinds[kind]
            found.count += 1
            if len(found.places) < _PLACES:
                found.places.append(place)
        elif len(self._kinds) < _KINDS:
            self._kinds[kind] = _Kind(f"{place}: {reason}", [])
        else:
            self._others += 1

    def describe(self, most: int) -> str:
        """Words the kinds, one a line, up to `most` of them."""
        lines = [_describe(kind) for kind in list(self._kinds.values())[:most]]
        hidden = sum(kind.count for kind in list(self._kinds.values())[most:]) + self._others
        return "\n".join(lines + [f"... and {hidden} more bad rows"] * (hidden > 0))


def _describe(kind: _Kind) -> str:
    if kind.count == 1:
        return kind.first
    more = "" if kind.count - 1 == len(kind.places) else ", ..."
    return f"{kind.first} ({kind.count - 1} more like it: {', '.join(kind.places)}{more})"
