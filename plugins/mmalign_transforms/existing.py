"""What becomes of the comparisons that a record has before a transform adds its own."""

from __future__ import annotations

from typing import Literal

from mmalign import DataError, Label, Record
from mmalign_transforms.tally import Tally

Existing = Literal["refuse", "keep", "replace"]


def take_over(record: Record, existing: Existing, transform: str, tally: Tally) -> list[Label]:
    """Returns the labels that stay: verdicts always, comparisons if they are to be kept.

    Raises:
        DataError: there are comparisons, and nothing says what to do with them.
    """
    compared = [label for label in record.labels if label.kind != "unary"]
    if compared and existing == "refuse":
        raise DataError(
            f"{transform}: record {record.id!r}: has a {compared[0].kind} label already; say `existing: keep` to train "
            "on both, or `existing: replace`"
        )
    stay = [label for label in record.labels if label.kind == "unary" or existing == "keep"]
    tally.add("comparisons (replaced)", len(record.labels) - len(stay))
    return stay
