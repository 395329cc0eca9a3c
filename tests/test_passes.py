"""Passes without gradient: how responses are cut into parts."""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign.passes import cut_rows, score_responses
from mmalign.values import EncodedResponse


def test_passes_without_gradient_keep_to_the_token_budget_too() -> None:
    """Prompts of 6 tokens with responses of 2, then of 3 with 1: 8, 10 and 12 positions, then 4 and 5."""
    long, short = EncodedResponse({}, 2, size=8, shared=6), EncodedResponse({}, 1, size=4, shared=3)
    responses = [short, long, long, short, long]
    assert list(cut_rows(responses, 9, None)) == [[1, 2, 4, 0, 3]]
    assert list(cut_rows(responses, 9, 12)) == [[1, 2, 4], [0, 3]]
    assert list(cut_rows(responses, 9, 11)) == [[1, 2], [4], [0, 3]]
    assert list(cut_rows(responses, 2, 100)) == [[1, 2], [4, 0], [3]]
    assert list(cut_rows(responses, 9, 1)) == [[1], [2], [4], [0], [3]]


def test_outputs_of_parts_are_joined_steps_with_zeros_and_prompts_with_nan() -> None:
    """Prompts of 3 positions and 1, responses of 1 step and 2: a state is its length."""
    responses = [EncodedResponse({}, 1, size=4, shared=3), EncodedResponse({}, 2, size=3, shared=1)]

    def network(part: list[EncodedResponse], want: tuple[str, ...]) -> dict[str, Tensor]:
        (own,) = part
        lengths = {"context": own.shared, "logps": own.steps}
        return {name: torch.full((1, lengths[name]), float(lengths[name])) for name in want}

    context, logps = (score_responses(network, responses, 1, None, name) for name in ("context", "logps"))
    assert logps.tolist() == [[1.0, 0.0], [2.0, 2.0]]
    assert context[0].tolist() == [3.0, 3.0, 3.0]
    assert context[1, 0] == 1.0 and context[1, 1:].isnan().all()
