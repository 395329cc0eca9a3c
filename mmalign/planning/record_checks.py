"""Whether a run can use a record: it is encoded before the run starts, as it will be when its turn comes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch

from mmalign.data.records import Record
from mmalign.errors import MediaError
from mmalign.planning.assembly import Assembly


class RecordCheck:
    """Encodes records and forgets what came out.

    Args:
        media: True if a record is refused for its images, too. They are left alone otherwise, until its turn comes: a
            run that goes on must see the records that it began with, whatever became of their images since.
    """

    def __init__(self, assembly: Assembly, *, media: bool) -> None:
        self._assembly = assembly
        self._media = media

    def __call__(self, record: Record) -> None:
        """Raises DataError for a record that cannot be encoded, or to whose prompt nothing could be sampled."""
        online = self._assembly.online
        try:
            with unchanged_randomness():
                if online:
                    self._assembly.modality.check_prompt(record, self._assembly.decoding)
                if not online or self._assembly.keeps_stored:
                    self._assembly.modality.encode(record)
        except MediaError:
            if self._media:
                raise


@contextmanager
def unchanged_randomness() -> Iterator[None]:
    """Leaves the states of the global generators as they were: what a check draws must not change a run."""
    states = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(states[0])
            numpy.random.set_state(states[1])
