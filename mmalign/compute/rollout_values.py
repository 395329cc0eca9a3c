"""What a batch of rollouts knows beyond its records: which responses were sampled, and with which log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import cast

import torch
from torch import Tensor

from mmalign.compute.passes import pad_rows
from mmalign.contract.modality import Modality
from mmalign.contract.values import EncodedResponse, Rollout


def encode_rollout(rollout: Rollout, modality: Modality) -> list[EncodedResponse]:
    """Lists the encoded responses of a rollout's record, in order: the stored ones, then the samples."""
    sampled = [item.encoded for item in rollout.responses]
    if not rollout.stored:
        return sampled
    stored = rollout.record.with_responses(rollout.stored)
    return [*(modality.encode_beside(stored, sampled) if sampled else modality.encode(stored)), *sampled]


def rollout_values(rollouts: Sequence[Rollout], encoded: Sequence[Sequence[EncodedResponse]]) -> dict[str, Tensor]:
    """Computes the quantities of `ROLLOUT_AXES`, on the CPU.

    Args:
        encoded: the result of `encode_rollout` for each of the rollouts.
    """
    marks: list[bool] = []
    behaviour: list[Tensor] = []
    for rollout, own in zip(rollouts, encoded, strict=True):
        stored = own[: len(rollout.stored)]
        marks += [False] * len(stored) + [True] * len(rollout.responses)
        behaviour += [torch.full((one.steps,), nan) for one in stored]
        behaviour += [cast(Tensor, item.behaviour_logps) for item in rollout.responses]
    sampled = torch.tensor(marks, dtype=torch.bool)
    return {"behaviour_logps": pad_rows(behaviour), "sampled": sampled, "stored": ~sampled}
