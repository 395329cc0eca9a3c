"""What a round of the loop works on: the next batch of records, or rollouts of the next prompts.

Records come in an order that is a function of (seed, epoch): stage after stage, shuffled inside each. The position is a
single number; so a run that resumes goes on with exactly the records it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch

from mmalign.data.records import Record
from mmalign.errors import DataError
from mmalign.sources.source import Source


class RecordStream:
    """An endless, resumable stream over a source, epoch after epoch.

    Attributes:
        position: records handed out so far, over all processes.
    """

    def __init__(self, source: Source, *, shuffle: bool, seed: int, position: int = 0) -> None:
        self.position = position
        self._source = source
        self._shuffle = shuffle
        self._seed = seed
        self._sized = hasattr(source, "__getitem__") and _has_length(source)
        self._iterator: Iterator[Record] | None = None

    def take(self, count: int) -> list[Record]:
        """Returns the next `count` records; raises DataError if the source is empty."""
        records = self._take_by_index(count) if self._sized else self._take_in_order(count)
        self.position += count
        return records

    def _take_by_index(self, count: int) -> list[Record]:
        size = len(self._source)
        if size == 0:
            raise DataError(f"{self._source.name}: no records to train on")
        places = (divmod(position, size) for position in range(self.position, self.position + count))
        return [self._source[self._order(epoch)[index]] for epoch, index in places]

    def _order(self, epoch: int) -> Sequence[int]:
        size = len(self._source)
        if not self._shuffle:
            return range(size)
        cached_epoch, order = getattr(self, "_cached_order", (-1, []))
        if cached_epoch != epoch:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
            order = _shuffle_stages(self._source.stages, generator)
            self._cached_order = (epoch, order)
        return order

    def _take_in_order(self, count: int) -> list[Record]:
        if self._iterator is None:
            self._iterator = islice(self._endless(), self.position, None)
        return list(islice(self._iterator, count))

    def _endless(self) -> Iterator[Record]:
        while True:
            empty = True
            for record in self._source:
                empty = False
                yield record
            if empty:
                raise DataError(f"{self._source.name}: no records to train on")


def _shuffle_stages(stages: Sequence[int], generator: torch.Generator) -> list[int]:
    order: list[int] = []
    for size in stages:
        order += [len(order) + place for place in torch.randperm(size, generator=generator).tolist()]
    return order


def _has_length(source: Source) -> bool:
    try:
        len(source)
    except TypeError:
        return False
    return True
