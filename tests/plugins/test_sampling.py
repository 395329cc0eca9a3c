"""The decodings on distributions worked out by hand."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mmalign_decodings.sampling import GreedyConfig, GreedyDecoding, SampleConfig, SampleDecoding

NONE_YET = torch.zeros(1, 0, dtype=torch.long)
LOGITS = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()  # [1, V]; likeliest first: 1, 3, 2, 0


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in logits > -inf]


def test_by_default_nothing_is_changed() -> None:
    assert SampleDecoding().adjust(LOGITS, NONE_YET) is LOGITS


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k_keeps_the_k_likeliest(count: int, expected: list[int]) -> None:
    adjusted = SampleDecoding(top_k=count).adjust(LOGITS, NONE_YET)
    assert kept(adjusted) == [expected]
    assert torch.equal(adjusted[0, expected], LOGITS[0, expected])


@pytest.mark.parametrize(
    ("mass", "expected"),
    # Cumulated: 0.5, 0.75, 0.9, 1.0.
    [(0.01, [1]), (0.45, [1]), (0.6, [1, 3]), (0.8, [1, 2, 3]), (0.95, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_top_p_keeps_the_smallest_set_with_that_mass(mass: float, expected: list[int]) -> None:
    assert kept(SampleDecoding(top_p=mass).adjust(LOGITS, NONE_YET)) == [expected]


def test_the_nucleus_is_taken_from_what_top_k_left() -> None:
    # The two likeliest, renormalised, have 2/3 and 1/3: the first alone reaches 0.6 now, and did not before.
    assert kept(SampleDecoding(top_p=0.6).adjust(LOGITS, NONE_YET)) == [[1, 3]]
    assert kept(SampleDecoding(top_k=2, top_p=0.6).adjust(LOGITS, NONE_YET)) == [[1]]


def test_rows_are_cut_on_their_own() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]).log()
    assert kept(SampleDecoding(top_p=0.7).adjust(logits, NONE_YET)) == [[0], [0, 1], [1]]


@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=12),
    mass=st.floats(0.05, 0.95),
)
def test_a_nucleus_is_sufficient_and_minimal(weights: list[float], mass: float) -> None:
    probabilities = torch.tensor([weights]).softmax(dim=-1)
    inside = SampleDecoding(top_p=mass).adjust(probabilities.log(), NONE_YET)[0] > -inf
    total = float(probabilities[0, inside].sum())
    assert total >= mass - 1e-5
    assert total - float(probabilities[0, inside].min()) < mass + 1e-5
    assert not (~inside).any() or probabilities[0, inside].min() >= probabilities[0, ~inside].max()


def test_inputs_are_left_alone() -> None:
    logits = LOGITS.clone()
    for decoding in (SampleDecoding(top_k=1), SampleDecoding(top_p=0.3), GreedyDecoding()):
        decoding.adjust(logits, NONE_YET)
    assert torch.equal(logits, LOGITS)


def test_greedy_leaves_only_the_likeliest_step() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0]])
    adjusted = GreedyDecoding().adjust(logits, NONE_YET)
    assert kept(adjusted) == [[1], [0]]
    assert torch.multinomial(adjusted.softmax(dim=-1), 1).flatten().tolist() == [1, 0]
    assert GreedyDecoding().temperature == 1.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_keep_their_type_and_at_least_one_step(dtype: torch.dtype) -> None:
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    for decoding in (SampleDecoding(top_k=3), SampleDecoding(top_p=0.01), GreedyDecoding()):
        adjusted = decoding.adjust(logits, NONE_YET)
        assert adjusted.dtype == dtype
        assert all(kept(adjusted))


def test_configured_decodings_have_their_fields() -> None:
    sample = SampleDecoding(**SampleConfig(temperature=0.8, top_k=5, top_p=0.9, max_steps=24).model_dump())
    assert (sample.temperature, sample.top_k, sample.top_p, sample.max_steps) == (0.8, 5, 0.9, 24)
    assert GreedyDecoding(**GreedyConfig(max_steps=7).model_dump()).max_steps == 7


@pytest.mark.parametrize(
    "wrong", [{"temperature": 0}, {"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}, {"max_steps": 0}]
)
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SampleConfig(**wrong)
