"""The ranking diagnostics of preference pairs."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_evaluators.diagnostics import (
    SURE,
    acceptance_probabilities,
    flip_thresholds,
    idealised_log_ratios,
    is_higher,
    rater_proportions,
)

REFERENCE_CHOSEN = torch.tensor([-10.0, -6.0, -8.0], dtype=torch.float64)
REFERENCE_REJECTED = torch.tensor([-8.0, -7.0, -8.0], dtype=torch.float64)
PREFERRED = torch.tensor([0.8, 0.7, 0.6], dtype=torch.float64)


def ideal(beta: float, preferred: torch.Tensor = PREFERRED) -> torch.Tensor:
    return idealised_log_ratios(REFERENCE_CHOSEN, REFERENCE_REJECTED, preferred, beta=beta)


def test_a_tie_is_not_ranked_rightly() -> None:
    assert is_higher(torch.tensor([2.0, 1.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])).tolist() == [1.0, 0.0, 0.0]


def test_idealised_log_ratio_by_hand() -> None:
    """Reference log-ratio -2, four raters in five, beta 0.5: -2 + 2 ln 4."""
    assert ideal(0.5)[0].item() == pytest.approx(-2 + 2 * math.log(4), rel=1e-14)


def test_the_idealised_policy_is_the_reference_for_a_large_beta_and_right_for_a_small_one() -> None:
    zeros = torch.zeros(3, dtype=torch.float64)
    of_reference = is_higher(REFERENCE_CHOSEN[:2], REFERENCE_REJECTED[:2])
    assert torch.equal(is_higher(ideal(1e9), zeros)[:2], of_reference)
    assert is_higher(ideal(1e-6), zeros).tolist() == [1.0, 1.0, 1.0]


def test_raters_who_all_agree_are_almost_sure() -> None:
    certain = ideal(1.0, torch.ones(3, dtype=torch.float64))
    expected = REFERENCE_CHOSEN - REFERENCE_REJECTED + math.log((1 - SURE) / SURE)
    assert torch.allclose(certain, expected, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_a_pair_is_ranked_rightly_where_its_dpo_loss_is_below_the_threshold(beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    policy_chosen, policy_rejected, chosen, rejected = torch.randn(4, 500, generator=generator, dtype=torch.float64)
    margins = (policy_chosen - chosen) - (policy_rejected - rejected)
    losses = torch.log1p(torch.exp(-beta * margins))
    below = losses < flip_thresholds(chosen, rejected, beta=beta)
    assert torch.equal(below, policy_chosen > policy_rejected)
    assert 0 < below.sum() < 500


def test_flip_threshold_by_hand() -> None:
    """The reference prefers rejected by 2 nats, beta 0.5: -ls(1) = ln(1 + exp(-1)); an undecided one: ln 2."""
    thresholds = flip_thresholds(REFERENCE_CHOSEN, REFERENCE_REJECTED, beta=0.5)
    assert thresholds[0].item() == pytest.approx(0.3132616875182228, rel=1e-14)
    assert thresholds[2].item() == pytest.approx(math.log(2), rel=1e-14)


def test_the_best_candidate_is_accepted_and_a_high_temperature_accepts_all() -> None:
    rewards = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    assert acceptance_probabilities(rewards, beta=1.0).tolist() == pytest.approx([math.exp(-2), 1.0, math.exp(-1)])
    assert acceptance_probabilities(rewards, beta=1e9).tolist() == pytest.approx([1.0] * 3)
    assert acceptance_probabilities(rewards, beta=1e-3).tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_strengths_are_proportions_where_they_can_be() -> None:
    strengths = torch.tensor([0.5, 0.8, 1.0, 0.3, 2.5, float("nan")])
    assert rater_proportions(strengths).tolist() == pytest.approx([0.5, 0.8, 1.0, 0.3, 1.0, 1.0])
