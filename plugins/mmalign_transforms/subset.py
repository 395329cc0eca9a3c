"""A part of the data that depends on a seed and the records' ids only; smaller parts lie within larger ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nsmallest

from pydantic import Field, model_validator

from mmalign import DataError, Parameters, Record, Transform
from mmalign_transforms.tally import seeded

NAME = "subset"


class SubsetConfig(Parameters):
    """A part of the data; give `fraction` or `count`."""

    fraction: float | None = Field(default=None, gt=0, le=1)
    """Chance of every record to be in it; the part of 10 % lies within the part of 20 %."""
    count: int | None = Field(default=None, ge=1)
    """Exactly so many records; not for streamed data."""
    seed: int = Field(default=0, ge=0)
    """Another seed, another part."""

    @model_validator(mode="after")
    def _check_one(self) -> SubsetConfig:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("expected one of fraction and count")
        return self


@dataclass(eq=False, kw_only=True)
class Subset(Transform):
    """Gives every record a number in [0, 1) from the seed and its id, and keeps the small ones.

    The fields are those of `SubsetConfig`. Whether a record is in a fraction does not depend on what else there is.
    """

    fraction: float | None
    count: int | None
    seed: int

    def __post_init__(self) -> None:
        self.whole = self.count is not None

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the records that are in it, in their order."""
        if self.count is None:
            limit = self.fraction or 0.0
            yield from (record for record in records if self._place(record) < limit)
            return
        everything = list(records)
        if self.count > len(everything):
            raise DataError(f"{NAME}: count: {self.count} records, but there are only {len(everything)}")
        kept = set(nsmallest(self.count, range(len(everything)), key=lambda index: self._place(everything[index])))
        yield from (record for index, record in enumerate(everything) if index in kept)

    def _place(self, record: Record) -> float:
        return seeded(self.seed, record.id).random()
