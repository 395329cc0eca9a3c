"""Samples that got no score: counted, told once with the first cause, and never taken for a zero."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import isnan

from mmalign.errors import TrainingError
from mmalign.foreign import describe_error

logger = logging.getLogger(__name__)

Scores = tuple[float, ...]
"""One number for each dimension of a reward, NaN where there is none; one number in all of a scalar reward."""

Outcome = Scores | Exception
"""The scores of a sample, or the exception that is the reason why it has none."""


class FailureCount:
    """Counts the failures of one reward.

    Attributes:
        dimensions: of the reward; empty for a scalar one.
        total: samples that lack a score, in one dimension or in all, so far; equal ones of a call count once.
    """

    def __init__(self, name: str, dimensions: Sequence[str] = ()) -> None:
        self.name = name
        self.dimensions = tuple(dimensions)
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
        partial = [one for one in outcomes if not isinstance(one, Exception) and any(map(isnan, one))]
        count = len(causes) + len(partial)
        if count and not self.total:
            cause = describe(causes[0]) if causes else f"it returned NaN{self._name_missing(partial[0])}"
            text = "rewards.%s: no score for %d of %d samples; first cause: %s; further failures are only counted"
            logger.warning(text, self.name, count, len(outcomes), cause)
        self.total += count

    def _name_missing(self, scores: Scores) -> str:
        missing = [name for name, score in zip(self.dimensions, scores, strict=False) if isnan(score)]
        return f" for {', '.join(missing)}" if missing else ""


def describe(error: Exception) -> str:
    """Writes an exception in one line, with the last line of its author's files that ran."""
    return describe_error(error, None, error.__traceback__)
