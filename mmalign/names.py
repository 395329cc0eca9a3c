"""Names that tell parts of one sort apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Appends `_2`, `_3`, ... to the later ones of equal names.

    >>> distinct_names(["length", "vader", "length"])
    ('length', 'vader', 'length_2')
    """
    taken = set(names)
    distinct: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in count(2))
        distinct.append(next(one for one in numbered if one not in taken) if name in distinct else name)
        taken.add(distinct[-1])
    return tuple(distinct)
