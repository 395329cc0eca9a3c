"""Group sampling beside the responses of the data, so that one run trains on pairs or demonstrations and on samples."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign import Generated, Record, Rollout
from mmalign_collectors.group import GroupCollector


class MixedCollector(GroupCollector):
    """Samples as `GroupCollector` does, and puts the samples behind the stored responses of their record."""

    def _join(self, record: Record, group: Sequence[Generated]) -> Rollout:
        return Rollout.extend(record, group)
