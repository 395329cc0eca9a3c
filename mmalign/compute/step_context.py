"""What the provider of a `step` quantity may use: the global batch, as far as one process has it, and sums over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmalign.contract.batch import Batch
from mmalign.data.records import Record
from mmalign.distribution import count_and_mean, gather_shares, list_following
from mmalign.errors import DataError
from mmalign.losses.reductions import masked_sum

if TYPE_CHECKING:
    from mmalign.contract.engine import Backend


@dataclass(frozen=True)
class StepContext:
    """What the provider of a `step` quantity may use.

    Attributes:
        backend: computes log-probs of any encoded responses.
        batch: this process's share of the global batch.
        training: False in an evaluation.
    """

    backend: Backend
    batch: Batch
    training: bool = True

    @property
    def records(self) -> tuple[Record, ...]:
        """The records whose responses are in this process's share; a mini-batch of a round holds some of them."""
        present = torch.unique(self.batch.quantities["prompt_index"]).tolist()
        return tuple(self.batch.records[prompt] for prompt in present)

    def mismatched(self) -> tuple[Tensor, Tensor]:
        """Scores responses under prompts that are not theirs: policy and reference sequence log-probs [n].

        Every prompt of this process's share gets the responses to the next one of the global batch. A response is
        skipped if its own prompt is the only one.
        """
        encoded = self.backend.encode_responses(self._shifted_records())
        if not encoded:
            return torch.zeros(0), torch.zeros(0)
        mask = torch.arange(max(item.steps for item in encoded)) < torch.tensor([[item.steps] for item in encoded])
        policy = self.backend.policy_logps(encoded)
        reference = self.backend.score_with_reference(encoded, stored=not self.backend.online)
        mask = mask.to(policy.device)
        return masked_sum(policy, mask), masked_sum(reference, mask)

    def policy_sequence_logps(self) -> Tensor:
        """Scores the responses of this process's share: policy log-probs summed over steps [n], before the step."""
        return masked_sum(self.backend.policy_logps(self.batch.responses), self.batch.quantities["step_mask"])

    def gather(self, values: Tensor) -> tuple[Tensor, slice]:
        """Joins the values [n] of all processes, in the order of the processes; n may differ between them.

        Returns:
            all values, float64, and where this process's own are among them.
        """
        backend = self.backend
        counts = torch.zeros(backend.processes, dtype=torch.float64, device=backend.device)
        counts[backend.process_index] = len(values)
        ends = backend.sum_over_processes(counts).cumsum(0).long().tolist()
        own = slice(ends[backend.process_index] - len(values), ends[backend.process_index])
        joined = torch.zeros(ends[-1], dtype=torch.float64, device=backend.device)
        joined[own] = values.to(joined)
        return backend.sum_over_processes(joined), own

    def mean(self, values: Tensor) -> Tensor:
        """Averages over the values of all processes; 0 if there are none."""
        values = values.to(self.backend.device)
        _, mean = count_and_mean(values, self.backend.sum_over_processes)
        return values.new_tensor(mean)

    def running_mean(self, name: str, values: Tensor) -> Tensor:
        """Averages over the values of all processes and of all steps so far, this one included: a scalar.

        An evaluation adds nothing: it gets the mean of the steps before it or, if there were none, of its own values.

        Args:
            name: what the mean is of, distinct from those of other quantities.
        """
        values = values.to(self.backend.device)
        count, mean = count_and_mean(values, self.backend.sum_over_processes)
        total = count * mean
        before = self.backend.running_sums.get(name)
        if before is not None:
            total, count = (before[0] + total, before[1] + count) if self.training else before
        if self.training:
            self.backend.running_sums[name] = [total, count]
        return values.new_tensor(total / count if count else 0.0)

    def _shifted_records(self) -> list[Record]:
        shares = gather_shares(self.records)
        if sum(map(len, shares)) < 2:
            return []
        following = list_following(shares, self.backend.process_index)
        return [_answer(record, other) for record, other in zip(self.records, following, strict=True)]


def _answer(record: Record, other: Record) -> Record:
    """Puts the responses of another record under the prompt of this one, with the media that either names."""
    asked = [part.media for message in record.prompt for part in message.content]
    answered = [part.media for one in other.responses for message in one.messages for part in message.content]
    media = [one for one in record.media if one.mid in asked] + [one for one in other.media if one.mid in answered]
    if len({one.mid for one in media}) < len(media):
        raise DataError(
            f"records {record.id!r} and {other.id!r}: prompt of one and response of the other name different media "
            "alike; to compare mismatched pairs, give the media of responses names of their own"
        )
    return record.with_responses(other.responses).model_copy(update={"media": tuple(media)})
