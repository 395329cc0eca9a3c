"""Which reasoning step a token belongs to, and the mean states of these steps."""

from __future__ import annotations

import pytest
import torch

from mmalign import DataError, EncodedResponse, Record
from mmalign.batch import Batch, build_batch
from mmalign_objectives.reasoning_steps import average_states, compute_step_index, sum_by_step


def batch_of(masks: list[list[int] | None], lengths: list[int], scores: list[dict[str, object]]) -> Batch:
    plain = Record.from_text("q", [f"answer {place}" for place in range(len(lengths))], id="x").to_dict()
    record = Record.from_dict({**plain, "scores": scores})
    encoded = [
        EncodedResponse(
            {} if mask is None else {"response_mask": torch.tensor(mask, dtype=torch.bool)}, steps=steps, size=steps
        )
        for mask, steps in zip(masks, lengths, strict=True)
    ]
    return build_batch([record], [encoded], targets_only=False)


def spans(item: str, *pairs: list[int], name: str = "steps", source: str = "tokens") -> dict[str, object]:
    return {
        "item": item,
        "name": name,
        "level": "token",
        "values": [None] * len(pairs),
        "spans": pairs,
        "source": source,
    }


def test_spans_of_the_score_are_the_steps() -> None:
    """Between the spans and beyond the end there is none; another score says nothing."""
    scores = [spans("r0", [0, 1], name="items"), spans("r0", [0, 2], [3, 9]), spans("r1", [1, 3])]
    index = compute_step_index(batch_of([None, None], [4, 3], scores))
    assert index.tolist() == [[1, 1, 0, 2], [0, 1, 1, 0]]


def test_without_a_score_turns_are_the_steps() -> None:
    """Two tokens of a first turn, one of a second; of another response all tokens; a modality that knows no turns."""
    index = compute_step_index(batch_of([[1, 1, 0, 0, 1], [1, 1], None], [3, 2, 1], []))
    assert index.tolist() == [[1, 1, 2], [1, 1, 0], [1, 0, 0]]


def test_spans_of_characters_are_refused() -> None:
    with pytest.raises(DataError, match="'steps': spans of steps count tokens"):
        compute_step_index(batch_of([None], [2], [spans("r0", [0, 1], source="characters")]))


INDEX = torch.tensor([[1, 1, 2], [0, 1, 0]])


def test_states_are_averaged_over_their_step() -> None:
    states = torch.arange(12.0).reshape(2, 3, 2)
    states[1, 0] = torch.nan  # belongs to none
    averages = average_states(states, INDEX)
    assert averages.tolist() == [[[1.0, 2.0], [4.0, 5.0]], [[8.0, 9.0], [0.0, 0.0]]]


def test_values_are_summed_over_their_step() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [torch.nan, 5.0, torch.nan]])
    assert sum_by_step(values, INDEX, 3).tolist() == [[3.0, 4.0, 0.0], [5.0, 0.0, 0.0]]
