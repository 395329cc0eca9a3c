"""Passes without gradient: how responses are cut into parts."""

from __future__ import annotations

from mmalign.passes import cut_rows
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
