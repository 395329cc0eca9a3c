"""What a transform leaves out, counted and said once a pass; and random choices that records decide themselves."""

from __future__ import annotations

import logging
from collections import Counter
from random import Random

_log = logging.getLogger(__name__)


class Tally:
    """Counts by reason; `report` says them in one warning.

    >>> tally = Tally("rad")
    >>> tally.add("pairs (rated the other way round)", 2)
    """

    def __init__(self, transform: str) -> None:
        self._transform = transform
        self._counts: Counter[str] = Counter()

    def add(self, what: str, count: int = 1) -> None:
        """Counts `count` more of `what`, a plural with its reason in brackets."""
        self._counts[what] += count

    def report(self) -> None:
        """Warns of what was counted, if anything was."""
        found = [f"{count} {what}" for what, count in self._counts.items() if count]
        if found:
            _log.warning("%s: left out %s", self._transform, ", ".join(found))


def seeded(seed: int, record_id: str) -> Random:
    """Returns a generator that depends on nothing but the seed and the record's id, on any machine.

    >>> seeded(0, "a").random() == seeded(0, "a").random() != seeded(1, "a").random()
    True
    """
    return Random(f"{seed}:{record_id}")
