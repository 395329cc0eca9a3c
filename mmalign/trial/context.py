"""What stands for the engine where functions of the stage `step` are tried: one process, made-up log-probs."""

from __future__ import annotations

from typing import Any, NoReturn, cast

import torch
from torch import Tensor

from mmalign.compute.step_context import StepContext
from mmalign.contract.batch import Batch
from mmalign.data.records import Record
from mmalign.errors import MmalignError


class NotTried(MmalignError):
    """Plugin code asked for what only a run has."""


class _NoBackend:
    def __getattr__(self, name: str) -> NoReturn:
        raise NotTried(f"no {name} in a trial")


class TrialContext(StepContext):
    """A `StepContext` without a model."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(backend=cast(Any, _NoBackend()), batch=batch)

    @property
    def records(self) -> tuple[Record, ...]:
        """The made-up records."""
        return self.batch.records

    def mismatched(self) -> tuple[Tensor, Tensor]:
        """Made-up sequence log-probs [5] of policy and reference."""
        return -torch.arange(1.0, 6.0), -torch.arange(1.5, 6.5)

    def policy_sequence_logps(self) -> Tensor:
        """Made-up sequence log-probs [N]."""
        return -torch.arange(1.0, 1.0 + len(self.batch))

    def gather(self, values: Tensor) -> tuple[Tensor, slice]:
        """The values of the only process."""
        return values.double(), slice(0, len(values))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the values; 0 if there are none."""
        return values.mean() if len(values) else values.new_zeros(())

    def running_mean(self, name: str, values: Tensor) -> Tensor:
        """The mean of the values: a run that begins."""
        return self.mean(values)
