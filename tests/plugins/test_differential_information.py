"""Differential information: DPO's optimum for resampled rejected responses, and the entropy of the difference."""

from __future__ import annotations

import math
from random import Random

import pytest

from mmalign_transforms.differential_information import (
    count_order_violations,
    draw_rejected,
    information_entropy,
    rejection_weights,
)


def random_distribution(chance: Random, size: int) -> list[float]:
    weights = [chance.random() + 0.05 for _ in range(size)]
    return [weight / sum(weights) for weight in weights]


def logs(probabilities: list[float]) -> list[float]:
    return [math.log(probability) for probability in probabilities]


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_label_probability_is_the_sigmoid_of_the_log_ratio_margin(beta: float, seed: int) -> None:
    """Chosen ~ reference, rejected ~ reference (reference / policy)^beta: Bayes gives sigmoid(beta margin)."""
    chance = Random(seed)
    policy, reference = random_distribution(chance, 6), random_distribution(chance, 6)
    # The weights thin out candidates that are samples of the reference themselves.
    weights = rejection_weights(logs(policy), logs(reference), beta)
    rejected = [weight * base for weight, base in zip(weights, reference, strict=True)]
    for i in range(6):
        for j in range(6):
            posterior = reference[i] * rejected[j] / (reference[i] * rejected[j] + reference[j] * rejected[i])
            margin = math.log(policy[i] / reference[i]) - math.log(policy[j] / reference[j])
            assert posterior == pytest.approx(1 / (1 + math.exp(-beta * margin)), abs=1e-15)


def test_rejection_weights_by_hand() -> None:
    """Reference (1/2, 1/2), policy (3/4, 1/4), beta 1: 2/3 and 2, normalised 1/4 and 3/4."""
    assert rejection_weights(logs([0.75, 0.25]), logs([0.5, 0.5]), 1.0) == pytest.approx([0.25, 0.75], rel=1e-14)


def test_long_responses_do_not_overflow() -> None:
    assert rejection_weights([-5000.0, -1.0], [-1.0, -5000.0], 1.0) == [1.0, 0.0]


def test_drawing_follows_the_weights() -> None:
    drawn = draw_rejected([0.25, 0.75], 4000, Random(0))
    assert drawn.count(1) / 4000 == pytest.approx(0.75, abs=0.03)
    assert drawn == draw_rejected([0.25, 0.75], 4000, Random(0))


def test_an_unchanged_policy_has_the_largest_entropy() -> None:
    """Policy and reference uniform over 8 responses: q is uniform, its entropy is ln 8."""
    uniform = [math.log(1 / 8)] * 8
    assert information_entropy(uniform, uniform) == pytest.approx(math.log(8), rel=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_the_entropy_is_estimated_from_samples(seed: int) -> None:
    chance = Random(seed)
    policy, reference = random_distribution(chance, 5), random_distribution(chance, 5)
    ratios = [p / r for p, r in zip(policy, reference, strict=True)]
    q = [ratio / sum(ratios) for ratio in ratios]
    exact = -sum(one * math.log(one) for one in q)
    drawn = chance.choices(range(5), weights=policy, k=40000)
    estimate = information_entropy([math.log(policy[i]) for i in drawn], [math.log(reference[i]) for i in drawn])
    assert estimate == pytest.approx(exact, abs=0.03)
    assert exact <= math.log(5)


def test_orders_that_disagree_are_counted() -> None:
    assert count_order_violations([1.0, 2.0, 3.0], [0.1, 0.2, 0.3]) == 0
    assert count_order_violations([1.0, 2.0, 3.0], [0.3, 0.2, 0.1]) == 3
    assert count_order_violations([1.0, 2.0, 3.0], [0.1, 0.3, 0.2]) == 1
    assert count_order_violations([1.0, 1.0], [0.1, 0.3]) == 0
