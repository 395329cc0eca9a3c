"""Names that tell parts of one sort apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Appends `_2`, `_3`, ... to the later ones of equal names.

    >>> distinct_names(["length", "vader", "length"])
    ('length', 'vader', 'length_2')
    """
    seen: Counter[str] = Counter()
    distinct = []
    for name in names:
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(distinct)
