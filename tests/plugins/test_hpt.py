"""The slots of the unified policy gradient, and the gate of HPT."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign_objectives.policy_gradient.hpt import (
    choose_imitation,
    hpt_reinforcement_loss,
    mark_imitated,
    mark_imitated_prompts,
    mark_reinforced,
    unified_gradient_loss,
)
from mmalign_objectives.policy_gradient.policy_gradient import policy_gradient_loss
from mmalign_objectives.supervised.sft import sft_loss
from mmalign_objectives.support.clipping import is_clipped
from mmalign_objectives.support.ratio import step_ratio

POLICY = torch.tensor([[-1.0, -0.2, -2.0], [-0.7, -1.1, float("nan")]], dtype=torch.float64)
BEHAVIOUR = torch.tensor([[-1.2, -0.9, -1.0], [-0.8, -1.0, float("nan")]], dtype=torch.float64)
ADVANTAGES = torch.tensor([[1.0, 0.5, -0.5], [-1.0, 2.0, float("nan")]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def gradient_of(losses: Tensor, policy: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(torch.where(MASK, losses, 0).sum(), policy)
    return torch.where(MASK, gradient, 0)


def unified(denominator: Tensor, advantages: Tensor, stable: Tensor = MASK) -> Tensor:
    policy = POLICY.clone().requires_grad_()
    losses, _ = unified_gradient_loss(policy, denominator, advantages, stable, MASK)
    return gradient_of(losses, policy)


def test_the_policy_for_a_denominator_is_supervised_fine_tuning() -> None:
    policy = POLICY.clone().requires_grad_()
    expected = gradient_of(sft_loss(policy)[0], policy)
    assert torch.allclose(unified(POLICY, torch.ones_like(POLICY)), expected, rtol=1e-14)


def test_the_sampler_for_a_denominator_and_clipping_for_a_mask_is_ppo() -> None:
    policy = POLICY.clone().requires_grad_()
    options = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip_limit": None}
    expected = gradient_of(policy_gradient_loss(policy, BEHAVIOUR, ADVANTAGES, MASK, **options)[0], policy)
    ratio = step_ratio(POLICY, BEHAVIOUR, MASK)
    clipped = is_clipped(ratio, ADVANTAGES, clip_low=0.2, clip_high=0.2)
    assert clipped.any()
    assert torch.allclose(unified(BEHAVIOUR, ADVANTAGES, ~clipped), expected, rtol=1e-13)


def test_one_for_a_denominator_weighs_steps_by_their_probability() -> None:
    expected = torch.where(MASK, -ADVANTAGES * POLICY.exp(), 0)
    assert torch.allclose(unified(torch.zeros_like(POLICY), ADVANTAGES), expected, rtol=1e-14)


def test_losses_of_padding_and_of_unstable_steps_are_zero() -> None:
    stable = MASK & torch.tensor([True, False, True])
    losses, _ = unified_gradient_loss(POLICY, BEHAVIOUR, ADVANTAGES, stable, MASK)
    assert (losses[~stable] == 0).all()
    assert losses.isfinite().all()


@pytest.mark.parametrize(
    ("gate", "expected"), [(-1, [False] * 3), (0, [True, False, False]), (3, [True, True, False]), (8, [True] * 3)]
)
def test_the_gate_imitates_where_few_rollouts_are_right(gate: int, expected: list[bool]) -> None:
    assert choose_imitation(torch.tensor([0, 3, 8]), gate=gate).tolist() == expected


def test_reinforcement_is_minus_the_advantage_times_the_ratio_at_steps_that_count() -> None:
    """Response 1: ratios exp(0.2), exp(0.7) and exp(-1); response 2 has two steps."""
    losses, metrics = hpt_reinforcement_loss(POLICY, BEHAVIOUR, torch.tensor([2.0, -1.0], dtype=torch.float64), MASK)
    ratios = torch.tensor([[0.2, 0.7, -1.0], [0.1, -0.1, 0.0]], dtype=torch.float64).exp()
    expected = torch.tensor([[-2.0], [1.0]], dtype=torch.float64) * ratios
    torch.testing.assert_close(losses, torch.where(MASK, expected, 0))
    torch.testing.assert_close(metrics["ratio"][MASK], ratios[MASK])


def test_prompts_are_imitated_where_at_most_so_many_rollouts_are_right() -> None:
    """Prompt 0 has one right rollout of two, prompt 1 none; a stored response without a reward is no rollout."""
    rewards = torch.tensor([0.9, 0.5, 0.2, float("nan")])
    prompts = torch.tensor([0, 0, 1, 1])
    mark = mark_imitated_prompts
    assert mark(rewards, prompts, gate=0, right_above=0.5).tolist() == [False, False, True, True]
    assert mark(rewards, prompts, gate=1, right_above=0.5).tolist() == [True] * 4
    assert mark(rewards, prompts, gate=1, right_above=0.4).tolist() == [False, False, True, True]
    assert mark(rewards, prompts, gate=0, right_above=0.1).tolist() == [False] * 4
    assert mark(rewards, prompts, gate=-1, right_above=0.5).tolist() == [False] * 4


def test_demonstrations_are_imitated_and_rollouts_reinforced() -> None:
    imitated = torch.tensor([True, True, True, False, False])
    targets = torch.tensor([True, True, False, True, True])
    stored = torch.tensor([True, False, True, True, False])
    assert mark_imitated(imitated, targets, stored).tolist() == [True, False, False, False, False]
    assert mark_reinforced(imitated, ~stored).tolist() == [False, False, False, False, True]
