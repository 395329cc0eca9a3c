"""Reg-GRPO: a regression of log-ratios on rewards."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign_objectives.policy_gradient.reg_grpo import reg_grpo_loss, standardise

REWARDS = torch.tensor([1.0, 0.0, 0.4, 1.6], dtype=torch.float64)
LOG_RATIOS = torch.tensor([0.3, 0.4, -0.3, -0.7], dtype=torch.float64)
ONE_PROMPT = torch.zeros(4).long()


def loss_of(
    log_ratios: Tensor, rewards: Tensor = REWARDS, prompts: Tensor = ONE_PROMPT, *, epsilon: float = 1e-9
) -> Tensor:
    behaviour = torch.full_like(log_ratios.detach(), -3.0)
    values = (behaviour + log_ratios, behaviour, rewards, prompts)
    return reg_grpo_loss(*values, epsilon=epsilon, correction=0)[0]


def test_reg_grpo_loss_by_hand() -> None:
    """Rewards 1 and 0 become 1 and -1, log-ratios 0 and 1 become -1 and 1: both are off by 2."""
    rewards, log_ratios = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert loss_of(log_ratios, rewards, ONE_PROMPT[:2]).item() == pytest.approx(4.0, rel=1e-9)


def test_the_loss_is_twice_one_minus_the_correlation() -> None:
    correlation = torch.corrcoef(torch.stack([REWARDS, LOG_RATIOS]))[0, 1].item()
    assert loss_of(LOG_RATIOS).item() == pytest.approx(2 * (1 - correlation), rel=1e-9)


@pytest.mark.parametrize(("slope", "loss"), [(0.7, 0.0), (-0.7, 4.0)])
def test_log_ratios_affine_in_the_rewards_cost_nothing_or_the_most(slope: float, loss: float) -> None:
    assert loss_of(slope * REWARDS + 5).item() == pytest.approx(loss, abs=1e-9)


@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3])
def test_equal_rewards_are_skipped(value: float) -> None:
    """The mean of equal numbers need not equal them in floating point."""
    log_ratios = LOG_RATIOS.clone().requires_grad_()
    losses = loss_of(log_ratios, torch.full_like(REWARDS, value))
    losses.sum().backward()
    assert losses.item() == 0.0
    assert log_ratios.grad is not None
    assert bool((log_ratios.grad == 0).all())


def test_the_first_gradient_is_that_of_reinforce_with_a_baseline_over_epsilon() -> None:
    log_ratios = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    loss_of(log_ratios, epsilon=0.1).sum().backward()
    advantages = (REWARDS - REWARDS.mean()) / REWARDS.std(correction=0)
    assert log_ratios.grad is not None
    assert torch.allclose(log_ratios.grad, -2 * advantages / 4 / 0.1, rtol=1e-9)


def test_its_gradient_flows_through_mean_and_deviation() -> None:
    """So neither a shift nor a stretch of all log-ratios changes anything."""
    log_ratios = LOG_RATIOS.clone().requires_grad_()
    loss_of(log_ratios).sum().backward()
    assert log_ratios.grad is not None
    assert log_ratios.grad.sum().item() == pytest.approx(0.0, abs=1e-12)
    assert (log_ratios.grad @ LOG_RATIOS).item() == pytest.approx(0.0, abs=1e-6)


def test_a_response_without_a_reward_is_left_out() -> None:
    rewards = torch.cat([REWARDS, torch.tensor([math.nan])])
    losses = loss_of(torch.cat([LOG_RATIOS, torch.tensor([9.0])]), rewards, torch.zeros(5).long())
    assert losses.item() == pytest.approx(loss_of(LOG_RATIOS).item(), rel=1e-12)


def test_prompts_have_statistics_of_their_own() -> None:
    both = loss_of(LOG_RATIOS.repeat(2), torch.cat([REWARDS, -REWARDS]), torch.tensor([4] * 4 + [2] * 4))
    assert both.tolist() == pytest.approx([loss_of(LOG_RATIOS, -REWARDS).item(), loss_of(LOG_RATIOS).item()])


def test_metrics_tell_the_spread_of_log_ratios_and_equal_rewards() -> None:
    values = (LOG_RATIOS, torch.zeros_like(LOG_RATIOS), torch.ones_like(REWARDS), ONE_PROMPT)
    _, metrics = reg_grpo_loss(*values, epsilon=1e-9, correction=1)
    assert metrics["log_ratio_std"].item() == pytest.approx(LOG_RATIOS.std().item(), rel=1e-9)
    assert metrics["equal_rewards"].tolist() == [1.0]


def test_standardised_padding_is_zero() -> None:
    values, divisors = standardise(torch.tensor([[1.0, 3.0, 7.0]]), torch.tensor([[True, True, False]]))
    assert values.tolist() == [[-1.0, 1.0, 0.0]]
    assert divisors.tolist() == [1.0]


def test_log_ratios_are_those_to_the_policy_that_sampled() -> None:
    """Every response was sampled with another log-prob; the differences are what is regressed."""
    behaviour = torch.tensor([-1.0, -5.0, -2.0, -9.0], dtype=torch.float64)
    rewards, log_ratios = torch.tensor([1.0, 0.0, 3.0, 2.0]).double(), torch.tensor([0.3, -0.1, 0.2, 0.6]).double()
    values = (behaviour + log_ratios, behaviour, rewards, torch.zeros(4, dtype=torch.long))
    correlation = torch.corrcoef(torch.stack([rewards, log_ratios]))[0, 1].item()
    loss = reg_grpo_loss(*values, epsilon=1e-8, correction=0)[0].item()
    assert loss == pytest.approx(2 * (1 - correlation), rel=1e-9)
