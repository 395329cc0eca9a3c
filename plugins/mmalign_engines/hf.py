"""Sampling in the process that trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmalign import Decoding, Engine, Generated, Modality, Record

if TYPE_CHECKING:
    from torch import nn


class InProcessEngine(Engine):
    """Lets the modality sample: always the newest weights, and log-probs of the very same network."""

    def prompts_per_draw(self, modality: Modality, count: int) -> int | None:
        """Returns what the modality says."""
        return modality.prompts_per_draw(count)

    def generate(
        self, modality: Modality, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Samples; see `Engine.generate`."""
        return modality.generate(network, records, decoding, count)
