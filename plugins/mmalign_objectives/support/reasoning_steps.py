"""Which reasoning step of a response each of its scored steps belongs to, and what the reference makes of that step.

A reasoning step is a line of an argument, or a turn of an agent; a scored step is a token.

Shapes: N responses, T scored steps, S reasoning steps of the longest response, D hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from mmalign import DataError, QuantitySpec, Response
from mmalign_objectives.support.response_rows import iter_responses
from mmalign_objectives.support.shapes import check_shapes

if TYPE_CHECKING:
    from mmalign import Batch, EncodedResponse, Record

SPECS = (
    QuantitySpec(
        name="step_index",
        summary="Reasoning step of a token, from 1: spans of the score `steps`, else turns; 0 for none.",
        compute=f"{__name__}:compute_step_index",
        axes="NT",
        stage="data",
        needs=("step_mask", "prompt_index"),
    ),
    QuantitySpec(
        name="step_embeddings",
        summary="Mean state of the reference over every reasoning step.",
        compute=f"{__name__}:average_states",
        axes="NSD",
        stage="frozen",
    ),
)


SCORE = "steps"
"""Name of the token-level score whose spans are the reasoning steps of a response."""


def compute_step_index(batch: Batch) -> Tensor:
    """Numbers the reasoning steps of every response from 1: [N, T] long; 0 for what belongs to none.

    Reasoning steps are, whichever is there first:

    - the spans of the response's score of level `token` named `steps`, in their order; spans count scored steps, and
      what lies beyond the end of a response that was cut off is left out;
    - the nodes of the record's tree from the root to the one with the `rid` of the response, if their texts, joined by
      nothing, a blank or a line break, are its one turn; a token over a border belongs to the later node, the end token
      to the last;
    - the response's turns: runs of scored tokens, with unscored ones between them.

    Raises:
        DataError: the spans count characters.
    """
    index = torch.zeros(batch.quantities["step_mask"].shape, dtype=torch.long)
    for row, (record, response) in enumerate(iter_responses(batch)):
        encoded = batch.responses[row]
        spans = _read_spans(record, response.rid) or _find_nodes(batch, record, response, encoded)
        spans = spans or _find_turns(encoded)
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


def _find_nodes(batch: Batch, record: Record, response: Response, encoded: EncodedResponse) -> list[tuple[int, int]]:
    """Finds what of a response each node on its path in the tree covers; nothing where that cannot be told."""
    beginnings = _split_by_nodes(record, response)
    ids = encoded.tensors.get("response_ids")
    if not beginnings or ids is None or batch.encode is None:
        return []
    cut = [Response.from_text(response.rid, text) for text in beginnings]
    borders = [
        _count_common(ids, one.tensors["response_ids"])
        for beginning in cut
        for one in batch.encode(record.with_responses([beginning]))
    ]
    return list(zip([0, *borders], [*borders, encoded.steps], strict=True))


def _split_by_nodes(record: Record, response: Response) -> list[str]:
    """Lists how the response begins up to the end of each node on its path but the last."""
    nodes = {node.nid: node for node in record.tree}
    node = next((one for one in record.tree if one.rid == response.rid), None)
    texts: list[str] = []
    while node is not None:
        texts.insert(0, "".join(part.text or "" for part in node.content))
        node = nodes[node.parent] if node.parent is not None else None
    texts = [text for text in texts if text]
    if len(response.messages) > 1:
        return []
    for joint in ("", " ", "\n"):
        if texts and joint.join(texts) == response.text:
            return [joint.join(texts[:count]) for count in range(1, len(texts))]
    return []


def _count_common(ids: Tensor, others: Tensor) -> int:
    """Counts the ids with which both begin."""
    size = min(len(ids), len(others))
    return int((ids[:size] == others[:size]).long().cumprod(0).sum())


def _find_turns(response: EncodedResponse) -> list[tuple[int, int]]:
    """Finds the runs of scored tokens, counted without what lies between them."""
    scored = response.tensors.get("response_mask")
    if scored is None:
        return [(0, response.steps)]
    # Where a later turn shows an image, turns before it stand in the prompt.
    scored = torch.cat([response.tensors.get("prompt_mask", scored[:0]), scored])
    opens = scored & ~torch.cat([scored.new_zeros(1), scored[:-1]])
    starts = (scored.cumsum(0) - 1)[opens].tolist()
    return list(zip(starts, [*starts[1:], response.steps], strict=True))
