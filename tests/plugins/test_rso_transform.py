"""Statistical rejection sampling: the acceptance rule, its limits, and the pairs."""

from __future__ import annotations

import logging
import math
from random import Random

import pytest
from transforming import build, compared, pairs_of, rated, transform

from mmalign import ConfigError, DataError, Record
from mmalign_transforms.rso import acceptance_probabilities, draw_pairs, sample_candidates

REWARDS = [1.0, 3.0, 2.0, 0.0, 2.5]


def candidates(id: str = "p") -> Record:
    return rated({f"t{index}": reward for index, reward in enumerate(REWARDS)}, id)


def test_acceptance_by_hand() -> None:
    """Reward 1 below a best of 2 at beta 0.5: exp(-2) = 0.1353352832366127; the best is certain."""
    assert acceptance_probabilities([1.0, 2.0], 0.5) == [pytest.approx(0.1353352832366127, rel=1e-15), 1.0]


def test_acceptance_does_not_see_a_shift_of_the_rewards() -> None:
    shifted = acceptance_probabilities([reward + 7 for reward in REWARDS], 0.5)
    assert shifted == pytest.approx(acceptance_probabilities(REWARDS, 0.5), rel=1e-14)


def test_the_best_is_accepted_in_the_first_pass() -> None:
    for seed in range(50):
        assert 1 in sample_candidates(REWARDS, 5, 0.01, Random(seed))[:1]


def test_a_large_beta_accepts_all_in_order() -> None:
    assert sample_candidates(REWARDS, 5, math.inf, Random(0)) == [0, 1, 2, 3, 4]
    assert sample_candidates(REWARDS, 3, math.inf, Random(0)) == [0, 1, 2]


def test_a_small_beta_is_best_of_n() -> None:
    assert sample_candidates(REWARDS, 3, 1e-300, Random(0)) == [1, 4, 2]


def test_what_is_accepted_first_follows_the_optimal_policy() -> None:
    """Two candidates: the first pass accepts the worse one, which comes first, with probability exp(-d / beta)."""
    kept = [sample_candidates([0.0, 1.0], 1, 0.7, Random(seed))[0] for seed in range(4000)]
    assert kept.count(0) / 4000 == pytest.approx(math.exp(-1 / 0.7), abs=0.03)


def test_never_more_than_wanted_and_never_twice() -> None:
    for seed in range(100):
        accepted = sample_candidates(REWARDS, 3, 2.0, Random(seed))
        assert len(accepted) == len(set(accepted)) == 3


def test_first_round_pairs_are_disjoint_and_a_tournament_leaves_one() -> None:
    rids = list("abcde")
    rewards = dict(zip(rids, REWARDS, strict=True))
    for seed in range(20):
        first = draw_pairs(rids, rewards, "first_round", "reward", Random(seed))
        assert len(first) == 2 and len({rid for pair in first for rid in pair}) == 4
        tournament = draw_pairs(rids, rewards, "tournament", "reward", Random(seed))
        assert len(tournament) == 4
        assert sorted(loser for _, loser in tournament) == ["a", "c", "d", "e"]
        assert all(rewards[winner] > rewards[loser] for winner, loser in tournament)


def test_sampled_labels_follow_the_bradley_terry_model() -> None:
    """A reward 1 ahead wins with probability sigmoid(1) = 0.731."""
    wins = [
        draw_pairs("ab", {"a": 1.0, "b": 0.0}, "first_round", "sampled", Random(seed))[0][0] for seed in range(4000)
    ]
    assert wins.count("a") / 4000 == pytest.approx(1 / (1 + math.exp(-1)), abs=0.02)


def test_the_transform_depends_on_seed_and_id() -> None:
    records = [candidates(f"p{index}") for index in range(20)]
    once = transform(records, "rso", accept=4)
    assert transform(records[::-1], "rso", accept=4) == once[::-1]
    assert transform(records, "rso", accept=4, seed=1) != once
    assert all(len(record.responses) == 4 and len(record.labels) == 2 for record in once)
    assert all(strength > 0 for record in once for _, _, strength in pairs_of(record))


def test_equal_rewards_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert transform(rated({"a": 1.0, "b": 1.0}), "rso", accept=2) == []
    assert "rso: left out 1 pairs (equal rewards), 1 records (all accepted responses have one reward)" in caplog.text


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(DataError, match="rso: record 'p': accept: 8, but only 5 responses have a reward"):
        transform(candidates(), "rso")
    with pytest.raises(DataError, match="rso: record 'p': has a pair label already"):
        transform(compared(candidates(), ("r0", "r1")), "rso", accept=2)
    with pytest.raises(DataError, match="no response has the score 'overall2'; did you mean 'overall'"):
        transform(candidates(), "rso", accept=2, score="overall2")
    with pytest.raises(ConfigError, match="beta: must be greater than 0"):
        build("rso", beta=0.0)
