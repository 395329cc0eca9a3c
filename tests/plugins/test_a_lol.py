"""A-LoL and its variants."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign_objectives.unpaired.a_lol import a_lol_kl_loss, a_lol_loss, a_lol_ref_free_loss, a_lol_seq_loss

POLICY = torch.tensor([-3.0, -6.0, -5.0, -4.0], dtype=torch.float64)
REFERENCE = torch.tensor([-3.5, -5.0, -9.0, -4.0], dtype=torch.float64)
ADVANTAGES = torch.tensor([0.8, 0.4, 1.1, -0.3], dtype=torch.float64)
STEPS = torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -0.7, math.nan]], dtype=torch.float64)
REFERENCE_STEPS = torch.tensor([[-1.5, -2.0, -3.0], [-0.2, -1.7, math.nan]], dtype=torch.float64)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_a_lol_by_hand() -> None:
    """Log-ratio ln 1.5, advantage 2, log-prob -3: 2 x 1.5 x 3."""
    policy = torch.tensor([-3.0], dtype=torch.float64)
    loss, _ = a_lol_loss(policy, policy - math.log(1.5), torch.tensor([2.0], dtype=torch.float64), clip=0.9)
    assert loss.item() == pytest.approx(9.0, rel=1e-14)


def test_a_lol_agrees_with_a_longhand_reference() -> None:
    losses, metrics = a_lol_loss(POLICY, REFERENCE, ADVANTAGES, clip=0.9)
    rows = zip(POLICY.tolist(), REFERENCE.tolist(), ADVANTAGES.tolist(), losses, metrics["ratio"], strict=True)
    for policy, reference, advantage, loss, ratio in rows:
        expected = min(max(math.exp(policy - reference), 0.1), 1.9)
        assert ratio.item() == pytest.approx(expected, rel=1e-14)
        assert loss.item() == pytest.approx(max(advantage, 0) * expected * -policy, rel=1e-14)


def test_all_forms_agree_where_the_policy_is_the_reference() -> None:
    weighted = ADVANTAGES.relu() * -POLICY
    assert torch.allclose(a_lol_loss(POLICY, POLICY, ADVANTAGES, clip=0.9)[0], weighted, rtol=1e-14)
    assert torch.allclose(a_lol_ref_free_loss(POLICY, ADVANTAGES)[0], weighted, rtol=1e-14)
    assert torch.allclose(a_lol_kl_loss(POLICY, POLICY, ADVANTAGES, kl_weight=0.1)[0], weighted, rtol=1e-14)
    sums = torch.where(MASK, STEPS, 0).sum(dim=1)
    by_step, _ = a_lol_seq_loss(STEPS, STEPS, MASK, ADVANTAGES[:2], clip=0.9)
    assert torch.allclose(by_step, ADVANTAGES[:2] * -sums, rtol=1e-14)


def test_no_gradient_flows_through_the_ratio() -> None:
    policy = POLICY.clone().requires_grad_()
    a_lol_loss(policy, REFERENCE, ADVANTAGES, clip=0.9)[0].sum().backward()
    ratio = (POLICY - REFERENCE).exp().clamp(0.1, 1.9)
    assert torch.allclose(policy.grad, -ADVANTAGES.relu() * ratio, rtol=1e-14)


def test_the_kl_form_has_the_gradient_of_a_smaller_advantage() -> None:
    """(A+ - b) times that of the negative log-likelihood."""
    policy = POLICY.clone().requires_grad_()
    a_lol_kl_loss(policy, REFERENCE, ADVANTAGES, kl_weight=0.1)[0].sum().backward()
    assert torch.allclose(policy.grad, -(ADVANTAGES.relu() - 0.1), rtol=1e-14)


def test_the_step_form_agrees_with_a_longhand_reference_and_ignores_padding() -> None:
    policy = STEPS.clone().requires_grad_()
    losses, metrics = a_lol_seq_loss(policy, REFERENCE_STEPS, MASK, ADVANTAGES[:2], clip=0.5)
    losses.sum().backward()
    for row, (own, reference) in enumerate(zip(STEPS.tolist(), REFERENCE_STEPS.tolist(), strict=True)):
        count = int(MASK[row].sum())
        ratios = [min(max(math.exp(p - r), 0.5), 1.5) for p, r in zip(own[:count], reference[:count], strict=True)]
        likelihood = sum(ratio * p for ratio, p in zip(ratios, own[:count], strict=True))
        assert losses[row].item() == pytest.approx(-ADVANTAGES[row].item() * likelihood, rel=1e-14)
        assert metrics["ratio"][row].item() == pytest.approx(sum(ratios) / count, rel=1e-14)
    assert policy.grad[1, 2].item() == 0.0


def test_responses_without_positive_advantage_teach_nothing() -> None:
    def gradient(loss: Tensor, policy: Tensor) -> Tensor:
        return torch.autograd.grad(loss.sum(), policy)[0]

    policy = POLICY.clone().requires_grad_()
    assert gradient(a_lol_loss(policy, REFERENCE, ADVANTAGES, clip=0.9)[0], policy)[3].item() == 0.0
    assert gradient(a_lol_ref_free_loss(policy, ADVANTAGES)[0], policy)[3].item() == 0.0
