"""What encoding has to tell without refusing it: said once when it first happens, and counted for `check`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)


@dataclass
class Notes:
    """Sentences, each with the places that it is about."""

    places: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, sentence: str, where: str) -> None:
        """Adds a sentence about a place; the first time it is logged."""
        if sentence not in self.places:
            logger.warning("%s: %s", where, sentence)
        self.places.setdefault(sentence, {})[where] = None

    def lines(self) -> list[str]:
        """Returns every sentence with its first place, and how many more there are."""
        return [f"{_name(list(places))}: {sentence}" for sentence, places in self.places.items()]


def _name(places: list[str]) -> str:
    return places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")
