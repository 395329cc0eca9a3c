"""OREO."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign_objectives.unpaired.oreo import oreo_loss

BETA = 0.5
POLICY = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, -1.1, float("nan")]], dtype=torch.float64)
REFERENCE = torch.tensor([[-1.2, -0.9, -1.0], [-0.5, -1.5, float("nan")]], dtype=torch.float64)
VALUES = torch.tensor([[0.6, 0.7, 0.2], [0.4, 0.1, float("nan")]], dtype=torch.float64)
LABELS = torch.tensor([1.0, 0.0], dtype=torch.float64)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def evaluate(policy: Tensor = POLICY, values: Tensor = VALUES, weight: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
    return oreo_loss(policy, REFERENCE, values, LABELS, MASK, beta=BETA, value_weight=weight)


def test_oreo_by_hand() -> None:
    """Last step of the second row: log-ratio 0.4, cost 0.2, outcome 0, value 0.1: both residuals are 0.3."""
    _, metrics = evaluate()
    assert metrics["policy_losses"][1, 1].item() == pytest.approx(0.09, rel=1e-14)
    assert metrics["value_losses"][1, 1].item() == pytest.approx(0.09, rel=1e-14)


def test_oreo_agrees_with_a_longhand_reference() -> None:
    losses, metrics = evaluate(weight=0.3)
    for row, steps in enumerate((3, 2)):
        costs = [BETA * (POLICY[row, t] - REFERENCE[row, t]).item() for t in range(steps)]
        for t in range(steps):
            value, outcome = VALUES[row, t].item(), LABELS[row].item()
            of_value = (value - outcome + sum(costs[t:])) ** 2
            of_policy = (value - outcome + costs[t] + sum(costs[t + 1 :])) ** 2
            assert metrics["value_losses"][row, t].item() == pytest.approx(of_value, rel=1e-13)
            assert losses[row, t].item() == pytest.approx(of_policy + 0.3 * of_value, rel=1e-13)


def test_the_gradient_of_a_step_touches_its_own_log_prob_only() -> None:
    policy = POLICY.clone().requires_grad_()
    losses, metrics = evaluate(policy)
    (gradient,) = torch.autograd.grad(losses[0, 1], policy)
    assert gradient.nonzero().tolist() == [[0, 1]]
    residual = metrics["policy_losses"][0, 1].sqrt()
    assert abs(gradient[0, 1]).item() == pytest.approx((2 * BETA * residual).item(), rel=1e-13)


def test_the_value_head_learns_and_the_policy_does_not_learn_through_it() -> None:
    values = VALUES.clone().requires_grad_()
    (plain,) = torch.autograd.grad(evaluate(values=values, weight=0.0)[0].sum(), values, allow_unused=True)
    assert plain is None or (plain == 0).all()
    losses, _ = evaluate(values=values, weight=1.0)
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    costs = BETA * (POLICY - REFERENCE)[0]
    ahead = torch.stack([costs[t:].sum() for t in range(3)])
    assert torch.allclose(gradient[0], 2 * (VALUES[0] - 1 + ahead), rtol=1e-13)
    assert gradient[1, 2].item() == 0


def test_residuals_vanish_for_the_soft_optimal_policy_and_its_value() -> None:
    """One state with two actions of outcomes 1 and 0: V = beta log E exp(R / beta), pi = ref exp((R - V) / beta)."""
    reference = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    outcomes = torch.tensor([1.0, 0.0], dtype=torch.float64)
    value = BETA * (reference + outcomes / BETA).logsumexp(0)
    policy = reference + (outcomes - value) / BETA
    mask = torch.ones(2, 1, dtype=torch.bool)
    values = value.expand(2, 1)
    losses, _ = oreo_loss(policy[:, None], reference[:, None], values, outcomes, mask, beta=BETA, value_weight=1.0)
    assert losses.abs().max().item() < 1e-28


def test_padding_reaches_nothing() -> None:
    losses, _ = evaluate(weight=1.0)
    assert losses[1, 2].item() == 0
    assert losses.isfinite().all()
