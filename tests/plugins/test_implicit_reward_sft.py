"""Supervised fine-tuning as implicit reward learning."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.supervised.implicit_reward_sft import implicit_reward_sft_loss

REWARDS = torch.tensor([-1.0, 0.0, 2.0, 5.0], dtype=torch.float64)
REFERENCE = torch.tensor([-9.0, -8.0, -7.0, -20.0], dtype=torch.float64)
BETA = 0.25


def evaluate(divergence: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses at REWARDS and their gradients for the log-probs, of which 1 / BETA nats are a unit of reward."""
    policy = (REFERENCE + REWARDS / BETA).requires_grad_()
    losses, _ = implicit_reward_sft_loss(policy, REFERENCE, beta=BETA, divergence=divergence)
    return losses.detach(), torch.autograd.grad(losses.sum(), policy)[0]


def test_by_hand() -> None:
    """At a reward of 2: -2, -2 + 1 and exp(-2)."""
    values = [evaluate(name)[0][2].item() for name in ("total_variation", "pearson", "hellinger")]
    assert values == pytest.approx([-2.0, -1.0, math.exp(-2)], rel=1e-14)


@pytest.mark.parametrize(
    ("divergence", "phi"),
    [
        ("total_variation", lambda r: -r),
        ("pearson", lambda r: -r + r**2 / 4),
        ("hellinger", lambda r: math.exp(-r)),
    ],
)
def test_agrees_with_a_longhand_reference(divergence: str, phi) -> None:
    assert evaluate(divergence)[0].tolist() == pytest.approx([phi(r) for r in REWARDS.tolist()], rel=1e-12)


def test_total_variation_has_the_gradient_of_fine_tuning_times_beta() -> None:
    assert evaluate("total_variation")[1].tolist() == [-BETA] * 4


def test_pearson_stops_at_a_reward_of_2_and_pulls_back_beyond() -> None:
    gradient = evaluate("pearson")[1]
    assert gradient[2].item() == 0.0
    assert (gradient[:2] < 0).all()
    assert gradient[3] > 0


def test_hellinger_fades_out() -> None:
    assert torch.allclose(evaluate("hellinger")[1], -BETA * torch.exp(-REWARDS), rtol=1e-13)


def test_a_demonstration_that_the_policy_rules_out_gives_a_finite_loss() -> None:
    policy = torch.tensor([-1e6], requires_grad=True)
    losses, _ = implicit_reward_sft_loss(policy, torch.zeros(1), beta=1.0, divergence="hellinger")
    assert torch.isfinite(losses).all()
