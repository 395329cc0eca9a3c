"""The rule of M3ID."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_decodings.m3id import is_unsure, m3id_scores

CONDITIONAL = torch.tensor([[2.0, 3.0, 0.5], [6.0, 0.0, 0.0]], dtype=torch.float64).log_softmax(dim=-1)
UNCONDITIONAL = torch.tensor([[1.0, 3.4, -2.5], [0.0, 1.0, 0.0]], dtype=torch.float64).log_softmax(dim=-1)


def scores(step: int, decay: float = 0.02, confidence: float = 0.9) -> torch.Tensor:
    return m3id_scores(CONDITIONAL, UNCONDITIONAL, step=step, decay=decay, confidence=confidence)


def test_m3id_scores_by_hand() -> None:
    """A share of 1/2 at step 1 for a decay of ln 2: 2 l_c - l_u."""
    got = scores(1, decay=math.log(2))
    assert torch.allclose(got[0], 2 * CONDITIONAL[0] - UNCONDITIONAL[0], rtol=1e-12)


def test_they_undo_a_mixture_of_log_probs() -> None:
    """l_c = g l* + (1 - g) l_u with g = exp(-decay step), solved for l*."""
    undecayed = torch.tensor([0.3, 0.2, 0.5], dtype=torch.float64).log()
    share = math.exp(-0.02 * 30)
    mixed = share * undecayed + (1 - share) * UNCONDITIONAL[0]
    got = m3id_scores(mixed, UNCONDITIONAL[0], step=30, decay=0.02, confidence=1.0)
    assert torch.allclose(got, undecayed, rtol=1e-12)


@pytest.mark.parametrize(("step", "decay"), [(0, 0.02), (50, 0.0)])
def test_nothing_changes_at_the_first_step_or_without_decay(step: int, decay: float) -> None:
    assert torch.equal(scores(step, decay), CONDITIONAL)


def test_nothing_changes_where_the_model_is_sure() -> None:
    assert is_unsure(CONDITIONAL, 0.9).tolist() == [True, False]
    assert torch.equal(scores(60)[1], CONDITIONAL[1])
    assert not torch.equal(scores(60)[0], CONDITIONAL[0])


def test_nothing_changes_where_the_condition_tells_nothing() -> None:
    got = m3id_scores(CONDITIONAL, CONDITIONAL, step=60, decay=0.02, confidence=1.0)
    assert torch.equal(got, CONDITIONAL)


@pytest.mark.parametrize("step", [2000, 10**6])
def test_late_steps_are_ranked_by_the_difference_alone(step: int) -> None:
    got = scores(step)[0]
    assert got.isfinite().all()
    assert got.argsort().tolist() == (CONDITIONAL - UNCONDITIONAL)[0].argsort().tolist()


def test_a_shift_of_both_scores_shifts_the_result() -> None:
    shifted = m3id_scores(CONDITIONAL - 3, UNCONDITIONAL - 3, step=20, decay=0.02, confidence=1.0)
    assert torch.allclose(shifted + 3, scores(20, confidence=1.0), rtol=1e-12)


def test_impossible_candidates_stay_impossible() -> None:
    conditional = torch.tensor([-math.inf, math.log(0.5), math.log(0.5)])
    unconditional = torch.tensor([0.2, 0.5, 0.3]).log()
    got = m3id_scores(conditional, unconditional, step=20, decay=0.02, confidence=0.9)
    assert got[0] == -math.inf
    assert got[1:].isfinite().all()


def test_shapes_must_be_equal() -> None:
    with pytest.raises(ValueError, match="unconditional_logps: expected the shape"):
        m3id_scores(CONDITIONAL, UNCONDITIONAL[0], step=1, decay=0.1, confidence=0.5)
