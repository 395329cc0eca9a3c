"""All losses over a few propositions: every world counts for one side, for the other, for both, or for none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from mmalign_objectives.logic.formulas import from_worlds, iter_worlds
from mmalign_objectives.logic.structures import PreferenceStructure


def count_structures(propositions: int) -> int:
    """Returns 4^(2^n), the number of losses over n propositions.

    >>> [count_structures(n) for n in (1, 2, 3)]
    [16, 256, 65536]
    """
    return int(4 ** (2**propositions))


def iter_structures(names: Sequence[str]) -> Iterator[PreferenceStructure]:
    """Yields one structure for every way to give each world to the preferred side, the other, both, or none.

    Those that leave a side empty are included; their log-ratio is infinite, or does not exist.
    """
    worlds = list(iter_worlds(names))
    for sides in product(("none", "preferred", "dispreferred", "both"), repeat=len(worlds)):
        chosen = list(zip(worlds, sides, strict=True))
        yield PreferenceStructure.from_sides(
            from_worlds([world for world, side in chosen if side in ("preferred", "both")]),
            from_worlds([world for world, side in chosen if side in ("dispreferred", "both")]),
        )
