"""Group-relative advantages."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_advantages.grpo import DrGRPOConfig, GRPOConfig, grpo_advantages

NAN = float("nan")
REWARDS = torch.tensor([1.0, 0.0, 0.5, 2.0, 4.0, 7.0], dtype=torch.float64)
PROMPTS = torch.tensor([0, 0, 0, 4, 4, 9])


def test_grpo_advantages_by_hand() -> None:
    """Groups (1, 0, 0.5), std 0.5; (2, 4), std sqrt 2; and (7), which gets 0. Epsilon 0.5 makes the first std 1."""
    advantages = grpo_advantages(REWARDS, PROMPTS, epsilon=0.5)
    second = 1 / (math.sqrt(2) + 0.5)
    assert advantages.tolist() == pytest.approx([0.5, -0.5, 0.0, -second, second, 0.0], abs=1e-15)


def test_grpo_agrees_with_torch_on_one_group() -> None:
    rewards = torch.randn(8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert torch.allclose(grpo_advantages(rewards, torch.zeros(8, dtype=torch.long)), expected, rtol=1e-13)


def test_batch_scale_divides_all_groups_by_one_number() -> None:
    expected = grpo_advantages(REWARDS, PROMPTS, scale="none") / (REWARDS.std() + 1e-4)
    assert torch.allclose(grpo_advantages(REWARDS, PROMPTS, scale="batch"), expected, rtol=1e-15)


def test_grpo_does_not_see_an_affine_change_of_the_rewards() -> None:
    moved = grpo_advantages(3 * REWARDS - 5, PROMPTS, epsilon=1e-12)
    assert torch.allclose(moved, grpo_advantages(REWARDS, PROMPTS, epsilon=1e-12), rtol=1e-9)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("reward", [0.1, 1 / 3, 1e8, -0.7])
def test_equal_rewards_give_exactly_zero(scale, reward: float) -> None:
    """The mean of three float32 0.1 is not 0.1: the difference, divided by epsilon, would be an advantage."""
    advantages = grpo_advantages(torch.full((3,), reward), torch.zeros(3, dtype=torch.long), scale=scale)
    assert advantages.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_missing_reward_changes_nothing_for_the_others(scale) -> None:
    with_missing = grpo_advantages(
        torch.cat([REWARDS, torch.tensor([NAN, NAN])]), torch.cat([PROMPTS, torch.tensor([0, 5])]), scale=scale
    )
    assert torch.equal(with_missing[:6], grpo_advantages(REWARDS, PROMPTS, scale=scale))
    assert with_missing[6:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_no_reward_at_all_is_no_advantage(scale) -> None:
    advantages = grpo_advantages(torch.full((2,), NAN), torch.tensor([0, 1]), scale=scale)
    assert advantages.tolist() == [0.0, 0.0]


def test_dr_grpo_is_the_preset_without_scale() -> None:
    assert (GRPOConfig().scale, DrGRPOConfig().scale) == ("group", "none")
    assert grpo_advantages(REWARDS, PROMPTS, **DrGRPOConfig().model_dump()).tolist() == pytest.approx(
        [0.5, -0.5, 0.0, -1.0, 1.0, 0.0], abs=1e-15
    )
