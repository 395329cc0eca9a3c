"""A curriculum over pairs: stages of training from easy to hard, by how far apart the two responses are."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from pydantic import Field

from mmalign import DataError, Parameters, Record, Transform
from mmalign_transforms.cutting import split_pair
from mmalign_transforms.reading import count_unpaired, iter_comparisons, measure_gap
from mmalign_transforms.tally import Tally, seeded

NAME = "curriculum"
KEY = "curriculum_stage"

_log = logging.getLogger(__name__)

Order = Literal["easy_first", "hard_first", "random"]


class CurriculumConfig(Parameters):
    """Stages of training over pairs."""

    stages: int = Field(default=3, ge=1)
    """Stages; one is the plain order."""
    within: Literal["data", "prompt"] = "data"
    """What is ranked and cut into stages of one size: all pairs together, or the pairs of each prompt."""
    score: str | None = None
    """Score whose difference is the gap of a pair; default: the strength of the label, else the first score."""
    order: Order = "easy_first"
    """A large gap is easy. The others are ablations."""
    multiple_of: int | None = Field(default=None, ge=1)
    """Stages are filled up to one length, a multiple of this, by their first pairs once more: give the batch size."""
    seed: int = Field(default=0, ge=0)
    """Seeds `random`."""


@dataclass(eq=False, kw_only=True)
class Curriculum(Transform):
    """Makes one record of every pair and says its stage, which it also writes into the record's `meta`.

    The fields are those of `CurriculumConfig`. With `multiple_of` equal to the batch size B no step mixes stages: with
    stages of n records, stage k trains in the steps k n / B + 1 to (k + 1) n / B of each epoch.

    Source: Curry-DPO (arXiv:2403.07230), section 3.
    """

    stages: int
    within: Literal["data", "prompt"]
    score: str | None
    order: Order
    multiple_of: int | None
    seed: int

    whole = True

    def apply(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields the pairs stage after stage."""
        tally = Tally(NAME)
        groups = [list(self._split(record, tally)) for record in records]
        ranked = groups if self.within == "prompt" else [[pair for group in groups for pair in group]]
        buckets: list[list[Record]] = [[] for _ in range(self.stages)]
        for pairs in ranked:
            for record, stage in self._assign(pairs):
                buckets[stage].append(_mark(record, stage))
        _check_filled(buckets)
        yield from (record for bucket in self._fill(buckets) for record in bucket)
        tally.report()

    def stage(self, record: Record) -> int:
        """Returns the stage that `apply` has written into the record."""
        stage = record.metadata.get(KEY)
        if stage is None:
            raise DataError(f"{NAME}: record {record.id!r}: a later transform has dropped its stage; put {NAME} last")
        return int(stage)

    def _split(self, record: Record, tally: Tally) -> Iterator[tuple[float, Record]]:
        tally.add("labels (no pair of plain responses)", count_unpaired(record))
        for index, comparison in enumerate(iter_comparisons(record)):
            yield measure_gap(record, comparison, self.score, NAME), split_pair(record, comparison, str(index))

    def _assign(self, pairs: Sequence[tuple[float, Record]]) -> Iterator[tuple[Record, int]]:
        """Ranks pairs and cuts the ranking; of equal gaps the earlier pair ranks first."""
        if self.order == "random":
            ranked = sorted(pairs, key=lambda pair: seeded(self.seed, pair[1].id).random())
        else:
            sign = -1.0 if self.order == "easy_first" else 1.0
            ranked = sorted(pairs, key=lambda pair: sign * pair[0])
        for place, (_, record) in enumerate(ranked):
            yield record, place * self.stages // len(ranked)

    def _fill(self, buckets: Sequence[list[Record]]) -> list[list[Record]]:
        if self.multiple_of is None:
            return list(buckets)
        size = -(-max(map(len, buckets)) // self.multiple_of) * self.multiple_of
        filled = [list(islice(cycle(bucket), size)) for bucket in buckets]
        repeated = sum(map(len, filled)) - sum(map(len, buckets))
        if repeated:
            _log.warning("%s: %d pairs come twice, so that every stage has %d", NAME, repeated, size)
        return filled


def _check_filled(buckets: Sequence[Sequence[Record]]) -> None:
    filled = [bool(bucket) for bucket in buckets]
    if not all(filled):
        what = f"stage {filled.index(False) + 1} of {len(filled)} is empty, there are too few pairs"
        raise DataError(f"{NAME}: {what}; set stages to {max(1, sum(filled))}, or make pairs with pairs_from_ratings")


def _mark(record: Record, stage: int) -> Record:
    return record.model_copy(update={"meta": json.dumps({**record.metadata, KEY: stage})})
