"""Leave-one-out advantages."""

from __future__ import annotations

import pytest
import torch

from mmalign_advantages.grpo import grpo_advantages
from mmalign_advantages.rloo import rloo_advantages, rloo_kl_advantages

NAN = float("nan")
REWARDS = torch.tensor([1.0, 0.0, 0.5, 2.0, 4.0, 7.0], dtype=torch.float64)
PROMPTS = torch.tensor([0, 0, 0, 4, 4, 9])


def test_rloo_advantages_by_hand() -> None:
    """Groups (1, 0, 0.5), (2, 4) and (7): each less the mean of the others; who has no others gets 0."""
    assert rloo_advantages(REWARDS, PROMPTS).tolist() == pytest.approx([0.75, -0.75, 0.0, -2.0, 2.0, 0.0], abs=1e-15)


def test_rloo_agrees_with_a_longhand_reference() -> None:
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(20, generator=generator, dtype=torch.float64)
    prompts = torch.randint(0, 5, (20,), generator=generator)
    for index, advantage in enumerate(rloo_advantages(rewards, prompts).tolist()):
        others = [rewards[j].item() for j in range(20) if j != index and prompts[j] == prompts[index]]
        expected = rewards[index].item() - sum(others) / len(others) if others else 0.0
        assert advantage == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_rloo_sums_to_zero_in_every_group_and_is_scaled_dr_grpo() -> None:
    """G / (G - 1) times the deviation from the group mean."""
    rewards, prompts = REWARDS[:3], PROMPTS[:3]
    advantages = rloo_advantages(rewards, prompts)
    assert advantages.sum().item() == pytest.approx(0, abs=1e-15)
    assert torch.allclose(advantages, 1.5 * grpo_advantages(rewards, prompts, scale="none"), rtol=1e-15)


def test_a_penalty_lowers_the_advantage_of_what_left_the_reference_by_hand() -> None:
    """Rewards (1, 0) less 0.1 (2, -2) are (0.8, 0.2): 0.6 and -0.6, whose standard deviation is 0.6 sqrt 2."""
    rewards, prompts = torch.tensor([1.0, 0.0]), torch.tensor([0, 0])
    behaviour, reference = torch.tensor([-3.0, -6.0]), torch.tensor([-5.0, -4.0])
    advantages = rloo_kl_advantages(rewards, prompts, behaviour, reference, beta=0.1)
    assert advantages.tolist() == pytest.approx([0.6, -0.6])
    scaled = rloo_kl_advantages(rewards, prompts, behaviour, reference, beta=0.1, normalise=True, epsilon=0.5)
    assert scaled[0].item() == pytest.approx(0.6 / (0.6 * 2**0.5 + 0.5))


def test_without_a_penalty_it_is_rloo() -> None:
    noise = torch.arange(6, dtype=torch.float64)
    advantages = rloo_kl_advantages(REWARDS, PROMPTS, noise, -noise, beta=0.0)
    assert torch.equal(advantages, rloo_advantages(REWARDS, PROMPTS))


def test_a_missing_reward_takes_part_in_nothing() -> None:
    rewards = torch.tensor([1.0, NAN, 0.0, NAN, 3.0])
    prompts = torch.tensor([0, 0, 0, 1, 1])
    assert rloo_advantages(rewards, prompts).tolist() == [1.0, 0.0, -1.0, 0.0, 0.0]


def test_normalising_gives_the_batch_mean_zero_and_standard_deviation_one() -> None:
    advantages = rloo_advantages(REWARDS, PROMPTS, normalise=True, epsilon=1e-12)
    assert advantages.mean().item() == pytest.approx(0, abs=1e-12)
    assert advantages.std().item() == pytest.approx(1, rel=1e-9)


def test_normalising_a_batch_of_one_reward_gives_zero() -> None:
    rewards = torch.tensor([5.0, NAN])
    assert rloo_advantages(rewards, torch.tensor([0, 0]), normalise=True).tolist() == [0.0, 0.0]


def test_order_of_responses_and_numbers_of_prompts_do_not_matter() -> None:
    order = torch.tensor([5, 3, 0, 4, 2, 1])
    shuffled = rloo_advantages(REWARDS[order], PROMPTS[order] * 7 + 2)
    assert torch.allclose(shuffled, rloo_advantages(REWARDS, PROMPTS)[order], atol=1e-15)


def test_rewards_without_their_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="two vectors of one length"):
        rloo_advantages(REWARDS, PROMPTS[:3])
    with pytest.raises(ValueError, match="two vectors of one length"):
        rloo_advantages(REWARDS[None], PROMPTS[None])


def test_epsilon_is_added_to_the_deviation() -> None:
    """Advantages 1 and -1 have the unbiased deviation sqrt(2)."""
    advantages = rloo_advantages(torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), normalise=True, epsilon=0.5)
    assert advantages.tolist() == pytest.approx([1 / (2**0.5 + 0.5), -1 / (2**0.5 + 0.5)], rel=1e-6)
