"""What encoding has to tell without refusing it: said once when it first happens, and counted for `check`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass
class Notes:
    """Sentences, each with the records that it is about.

    Attributes:
        counts: how often each was added; encoding a record twice adds it twice.
        places: where each was added first.
    """

    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def add(self, sentence: str, where: str) -> None:
        """Adds a sentence about a place; the first time it is logged."""
        if sentence not in self.counts:
            logger.warning("%s: %s", where, sentence)
            self.places[sentence] = where
        self.counts[sentence] = self.counts.get(sentence, 0) + 1

    def lines(self) -> list[str]:
        """Returns every sentence with its count and its first place."""
        return [
            f"{sentence} ({count} times, first in {self.places[sentence]})" for sentence, count in self.counts.items()
        ]
