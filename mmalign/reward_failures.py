"""Samples that got no score: counted, told once with the first cause, and never taken for a zero."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import isnan

from mmalign.errors import TrainingError

logger = logging.getLogger(__name__)

Outcome = float | Exception
"""A score, NaN where there is none, or the exception that is the reason."""


class FailureCount:
    """Counts the failures of one reward.

    Attributes:
        total: samples that got no score so far; equal ones of a call count once.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Counts the failures of a call; the first of a run are told with their cause.

        Raises:
            TrainingError: no sample got a score, and an exception says why.
        """
        causes = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if causes and len(causes) == len(outcomes):
            message = f"rewards.{self.name}: failed on all {len(causes)} samples; first cause: {describe(causes[0])}"
            raise TrainingError(message) from causes[0]
        count = len(causes) + sum(isnan(one) for one in outcomes if not isinstance(one, Exception))
        if count and not self.total:
            cause = describe(causes[0]) if causes else "it returned NaN"
            text = "rewards.%s: no score for %d of %d samples; first cause: %s; further failures are only counted"
            logger.warning(text, self.name, count, len(outcomes), cause)
        self.total += count


def describe(error: Exception) -> str:
    """Writes an exception in one line."""
    return f"{type(error).__name__}: {error}"
