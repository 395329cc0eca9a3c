"""Clipped policy gradient, its pieces (ratio, clipping) and the methods that are settings of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mmalign.losses.reductions import aggregation_weights, weighted_sum
from mmalign_objectives.policy_gradient.policy_gradient import (
    DAPOConfig,
    DrGRPOConfig,
    GRPOConfig,
    GSPOConfig,
    PolicyGradientConfig,
    policy_gradient_loss,
    sequence_policy_gradient_loss,
)
from mmalign_objectives.support.ratio import MAX_LOG_RATIO, sequence_ratio, step_ratio

NAN = float("nan")
CLIP: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip_limit": None}


def one_step(ratio: float, advantage: float, **options: Any) -> tuple[float, float, float]:
    """Returns loss, gradient and clip fraction of a single step with the given importance ratio."""
    policy = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    behaviour, mask = torch.zeros_like(policy), torch.ones(1, 1, dtype=torch.bool)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    losses, metrics = policy_gradient_loss(policy, behaviour, advantages, mask, **{**CLIP, **options})
    losses.sum().backward()
    return losses.item(), policy.grad.item(), metrics["clip_fraction"].item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0.0),  # on-policy: the gradient of REINFORCE
        (1.5, 2.0, -2.4, 0.0, 1.0),  # already much likelier: -1.2 x 2
        (0.5, 2.0, -1.0, -1.0, 0.0),  # less likely than it was: keeps teaching
        (0.5, -2.0, 1.6, 0.0, 1.0),  # already much less likely: 0.8 x 2
        (1.5, -2.0, 3.0, 3.0, 0.0),  # bad and likelier: the full ratio counts
        (1.5, 0.0, 0.0, 0.0, 0.0),  # no advantage, nothing to clip
    ],
)
def test_clipped_loss_by_hand(ratio: float, advantage: float, loss: float, gradient: float, clipped: float) -> None:
    assert one_step(ratio, advantage) == pytest.approx((loss, gradient, clipped), rel=1e-14, abs=1e-14)


def test_limits_are_separate_for_each_side() -> None:
    assert one_step(1.25, 1.0, clip_high=0.28)[1] == pytest.approx(-1.25)
    assert one_step(0.75, -1.0, clip_low=0.3, clip_high=0.0)[1] == pytest.approx(0.75)


def test_dual_clip_bounds_the_loss_of_bad_steps_only() -> None:
    """Limit 3: a bad step of ratio 5 costs 3 instead of 5 and gets zero gradient; good steps do not see it."""
    assert one_step(5.0, -1.0, dual_clip_limit=3.0)[:2] == pytest.approx((3.0, 0.0))
    assert one_step(5.0, -1.0)[:2] == pytest.approx((5.0, 5.0))
    assert one_step(2.0, -1.0, dual_clip_limit=3.0) == one_step(2.0, -1.0)
    assert one_step(5.0, 1.0, dual_clip_limit=3.0) == one_step(5.0, 1.0)


def test_on_policy_loss_is_minus_the_mean_advantage_and_its_gradient_that_of_reinforce() -> None:
    policy = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([0.75, -0.25], dtype=torch.float64)
    mask = torch.ones(2, 2, dtype=torch.bool)
    losses, metrics = policy_gradient_loss(policy, policy.detach(), advantages, mask, **CLIP)
    losses.mean().backward()
    assert losses.mean().item() == -0.25
    assert torch.equal(policy.grad, -advantages[:, None].expand(2, 2) / 4)
    assert (metrics["ratio"] == 1).all()


def test_advantages_may_be_given_for_every_step() -> None:
    policy = torch.zeros(2, 2)
    mask = torch.ones(2, 2, dtype=torch.bool)
    per_step = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    assert torch.equal(policy_gradient_loss(policy, policy, per_step, mask, **CLIP)[0], -per_step)
    with pytest.raises(ValueError, match="advantages: expected the shape"):
        policy_gradient_loss(policy, policy, per_step[:, :1], mask, **CLIP)


@pytest.mark.parametrize("loss", [policy_gradient_loss, sequence_policy_gradient_loss])
def test_padding_that_is_not_finite_reaches_neither_loss_nor_gradient(loss) -> None:
    policy = torch.tensor([[-1.0, NAN], [-2.0, -1.0]], requires_grad=True)
    behaviour = torch.tensor([[-1.5, float("-inf")], [-2.0, -1.5]])
    advantages = torch.tensor([[1.0, NAN], [-1.0, 0.5]])
    mask = torch.tensor([[True, False], [True, True]])
    losses, metrics = loss(policy, behaviour, advantages, mask, **CLIP)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(policy.grad).all()
    assert losses[0, 1] == policy.grad[0, 1] == 0
    assert torch.isfinite(metrics["ratio"]).all()


def test_sequence_ratio_is_the_geometric_mean_over_the_steps() -> None:
    """Ratios 2, 8 and padding: sqrt(16) = 4; a single step of 3 keeps its ratio."""
    policy = torch.tensor([[2.0, 8.0], [3.0, 5.0]], dtype=torch.float64).log()
    mask = torch.tensor([[True, True], [True, False]])
    ratio = sequence_ratio(policy, torch.zeros(2, 2, dtype=torch.float64), mask)
    assert ratio.tolist() == [pytest.approx([4.0, 4.0]), pytest.approx([3.0, 1.0])]


def test_sequence_and_step_ratios_agree_for_responses_of_one_step() -> None:
    policy, behaviour = torch.tensor([[-1.0], [-2.0]]), torch.tensor([[-1.5], [-1.0]])
    mask = torch.ones(2, 1, dtype=torch.bool)
    assert torch.equal(sequence_ratio(policy, behaviour, mask), step_ratio(policy, behaviour, mask))


def test_gspo_gradient_spreads_a_response_over_its_steps() -> None:
    """Ratio 1, two steps, mean aggregation: -A / L for each step."""
    policy = torch.full((1, 2), -1.0, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    advantages = torch.tensor([3.0], dtype=torch.float64)
    losses, _ = sequence_policy_gradient_loss(policy, policy.detach(), advantages, mask, **CLIP)
    losses.mean().backward()
    assert policy.grad.tolist() == [[-1.5, -1.5]]


def test_an_extreme_ratio_stays_finite_in_float32() -> None:
    policy = torch.tensor([[1000.0]], requires_grad=True)
    ratio = step_ratio(policy, torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
    assert ratio.item() == pytest.approx(math.exp(MAX_LOG_RATIO), rel=1e-6)


def test_methods_differ_in_settings_only() -> None:
    ppo, grpo, dapo, gspo = PolicyGradientConfig(), GRPOConfig(), DAPOConfig(), GSPOConfig()
    dr_grpo = DrGRPOConfig(horizon=64)
    configs = (ppo, grpo, dr_grpo, dapo, gspo)
    assert [config.aggregation for config in configs] == [
        "step_mean",
        "sequence_mean",
        "constant",
        "step_mean",
        "sequence_mean",
    ]
    assert (dapo.clip_low, dapo.clip_high) == (0.2, 0.28)


def test_dr_grpo_needs_a_horizon_and_so_does_whoever_chooses_its_aggregation() -> None:
    with pytest.raises(ValidationError, match="horizon"):
        DrGRPOConfig.model_validate({})
    with pytest.raises(ValidationError, match="'constant' needs `horizon`"):
        GRPOConfig(aggregation="constant")


def test_dapo_with_equal_limits_and_lengths_is_grpo() -> None:
    generator = torch.Generator().manual_seed(3)
    policy, behaviour = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    mask = torch.ones(4, 3, dtype=torch.bool)
    losses, _ = policy_gradient_loss(policy, behaviour, advantages, mask, **CLIP)
    totals = {"total_steps": torch.tensor(12.0), "total_responses": torch.tensor(4.0)}
    by_step, by_response = (
        weighted_sum(losses, aggregation_weights(name, mask, **totals)) for name in ("step_mean", "sequence_mean")
    )
    assert by_step.item() == pytest.approx(by_response.item(), rel=1e-6)


def test_loss_agrees_with_a_longhand_reference() -> None:
    generator = torch.Generator().manual_seed(5)
    policy, behaviour, advantages = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    mask = torch.ones(5, 4, dtype=torch.bool)
    options = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip_limit": 1.5}
    losses, metrics = policy_gradient_loss(policy, behaviour, advantages, mask, **options)
    for row in range(5):
        for step in range(4):
            advantage = advantages[row, step].item()
            ratio = math.exp(policy[row, step].item() - behaviour[row, step].item())
            bounded = min(max(ratio, 0.8), 1.3)
            expected = max(-ratio * advantage, -bounded * advantage)
            if advantage < 0:
                expected = min(expected, -1.5 * advantage)
            assert losses[row, step].item() == pytest.approx(expected, rel=1e-12)
            outside = (ratio > 1.3 and advantage > 0) or (ratio < 0.8 and advantage < 0)
            assert metrics["clip_fraction"][row, step].item() == outside


@pytest.mark.parametrize(("log_ratio", "advantage", "expected"), [(1.0, 1.0, -1.3), (-1.0, -1.0, 0.8)])
def test_gspo_clips_the_ratio_of_a_response_on_both_sides(log_ratio: float, advantage: float, expected: float) -> None:
    """exp(1) is cut to 1 + 0.3 where the advantage is positive, exp(-1) to 1 - 0.2 where it is negative."""
    behaviour = torch.full((1, 2), -3.0, dtype=torch.float64)
    mask = torch.ones(1, 2, dtype=torch.bool)
    options = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip_limit": None}
    advantages = torch.tensor([advantage], dtype=torch.float64)
    losses, _ = sequence_policy_gradient_loss(behaviour + log_ratio, behaviour, advantages, mask, **options)
    assert losses.tolist() == [pytest.approx([expected] * 2, rel=1e-12)]
