"""What the provider of a `step` quantity may use: the global batch, as far as one process has it, and sums over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmalign.batch import Batch
from mmalign.distribution import count_and_mean
from mmalign.records import Record
from mmalign.reductions import masked_sum

if TYPE_CHECKING:
    from mmalign.backend import Backend


@dataclass(frozen=True)
class StepContext:
    """What the provider of a `step` quantity may use.

    Attributes:
        backend: computes log-probs of any encoded responses.
        batch: this process's share of the global batch.
    """

    backend: Backend
    batch: Batch

    @property
    def records(self) -> tuple[Record, ...]:
        """The records whose responses are in this process's share; a mini-batch of a round holds some of them."""
        present = torch.unique(self.batch.quantities["prompt_index"]).tolist()
        return tuple(self.batch.records[prompt] for prompt in present)

    def mismatched(self) -> tuple[Tensor, Tensor]:
        """Scores every response under the next record's prompt: policy and reference sequence log-probs [n].

        A response is skipped if its own prompt is the only one.
        """
        encoded = [item for record in self._shifted_records() for item in self.backend.assembly.modality.encode(record)]
        if not encoded:
            return torch.zeros(0), torch.zeros(0)
        mask = torch.arange(max(item.steps for item in encoded)) < torch.tensor([[item.steps] for item in encoded])
        policy = self.backend.policy_logps(encoded)
        reference = self.backend.score_with_reference(encoded, stored=not self.backend.assembly.online)
        mask = mask.to(policy.device)
        return masked_sum(policy, mask), masked_sum(reference, mask)

    def mean(self, values: Tensor) -> Tensor:
        """Averages over the values of all processes; 0 if there are none."""
        values = values.to(self.backend.device)
        _, mean = count_and_mean(values, self.backend.sum_over_processes)
        return values.new_tensor(mean)

    def _shifted_records(self) -> list[Record]:
        records = self.records
        if len(records) < 2:
            return []
        return [
            record.with_responses(other.responses)
            for record, other in zip(records, [*records[1:], records[0]], strict=True)
        ]
