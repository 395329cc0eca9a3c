"""Which reasoning step of a response each of its scored steps belongs to, and what the reference makes of that step.

A reasoning step is a line of an argument, or a turn of an agent; a scored step is a token.

Shapes: N responses, T scored steps, S reasoning steps of the longest response, D hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mmalign import DataError
from mmalign_objectives.response_rows import iter_responses
from mmalign_objectives.shapes import check_shapes

if TYPE_CHECKING:
    from mmalign import Batch, EncodedResponse, Record

SCORE = "steps"
"""Name of the token-level score whose spans are the reasoning steps of a response."""


def compute_step_index(batch: Batch) -> Tensor:
    """Numbers the reasoning steps of every response from 1: [N, T] long; 0 for what belongs to none.

    Reasoning steps are the spans of the response's score of level `token` named `steps`, in their order; spans count
    scored steps, and what lies beyond the end of a response that was cut off is left out. Without such a score they are
    the response's turns: runs of scored tokens, with unscored ones between them.

    Raises:
        DataError: the spans count characters.
    """
    index = torch.zeros(batch.quantities["step_mask"].shape, dtype=torch.long)
    for row, (record, response) in enumerate(iter_responses(batch)):
        spans = _read_spans(record, response.rid) or _find_turns(batch.responses[row])
        for place, (start, end) in enumerate(spans, start=1):
            index[row, start:end] = place
    return index.masked_fill(~batch.quantities["step_mask"].cpu(), 0)


def sum_by_step(values: Tensor, step_index: Tensor, steps: int) -> Tensor:
    """Sums values [N, T] over every reasoning step, differentiably: [N, S] with S `steps`; 0 for one that is empty."""
    check_shapes(2, values=values, step_index=step_index)
    inside = step_index > 0
    sums = values.new_zeros(len(values), steps + 1)
    return sums.scatter_add(1, step_index.long(), torch.where(inside, values, 0))[:, 1:]


def average_states(reference_states: Tensor, step_index: Tensor) -> Tensor:
    """Averages the states of every reasoning step: [N, T, D] to [N, S, D], float32; zeros for one that is empty."""
    steps = int(step_index.max().clamp(min=1)) if step_index.numel() else 1
    members = one_hot(step_index.long(), steps + 1)[:, :, 1:].float()  # [N, T, S]
    states = torch.where(step_index[:, :, None] > 0, reference_states.float(), 0)
    sums = members.transpose(1, 2) @ states
    return sums / members.sum(dim=1).clamp(min=1)[:, :, None]


def _read_spans(record: Record, rid: str) -> list[tuple[int, int]]:
    named = (one for one in record.scores if one.level == "token" and one.name == SCORE and one.item == rid)
    score = next(named, None)
    if score is None:
        return []
    if score.source == "characters":
        raise DataError(f"record {record.id!r}: score {SCORE!r}: spans of steps count tokens, not characters")
    return list(score.spans)


def _find_turns(response: EncodedResponse) -> list[tuple[int, int]]:
    """Finds the runs of scored tokens, counted without what lies between them."""
    scored = response.tensors.get("response_mask")
    if scored is None:
        return [(0, response.steps)]
    opens = scored & ~torch.cat([scored.new_zeros(1), scored[:-1]])
    starts = (scored.cumsum(0) - 1)[opens].tolist()
    return list(zip(starts, [*starts[1:], response.steps], strict=True))
