"""KTO and its reference point."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from mmalign_objectives.unpaired.kto import apo_zero_unpaired_loss, estimate_kl_reference_point, kto_loss

POLICY = torch.tensor([-3.0, -6.0, -5.0, -4.0], dtype=torch.float64)
REFERENCE = torch.tensor([-5.0, -5.0, -5.0, -7.0], dtype=torch.float64)
LABELS = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)


def loss_of(policy: torch.Tensor, point: float, desirable: float = 1.0, undesirable: float = 1.0) -> torch.Tensor:
    weights = {"desirable_weight": desirable, "undesirable_weight": undesirable}
    return kto_loss(policy, REFERENCE, LABELS, torch.tensor(point, dtype=torch.float64), beta=0.5, **weights)[0]


def test_kto_loss_by_hand() -> None:
    """Desirable with log-ratio 2 at reference point 2: sigmoid(0), so half its weight of 1.2."""
    assert loss_of(POLICY, point=2.0, desirable=1.2)[0].item() == pytest.approx(0.6, rel=1e-15)


def test_kto_agrees_with_a_longhand_reference() -> None:
    losses = loss_of(POLICY, 0.7, desirable=1.0, undesirable=1.33)
    for policy, reference, label, loss in zip(POLICY, REFERENCE, LABELS, losses, strict=True):
        gain = 0.5 * (policy.item() - reference.item() - 0.7)
        expected = 1 / (1 + math.exp(gain)) if label else 1.33 / (1 + math.exp(-gain))
        assert loss.item() == pytest.approx(expected, rel=1e-14)


def test_every_term_is_half_its_weight_where_the_policy_is_the_reference() -> None:
    assert loss_of(REFERENCE, 0.0, 1.0, 1.33).tolist() == pytest.approx([0.5, 0.5, 0.665, 0.665], rel=1e-15)


def test_a_pair_at_reference_point_zero_is_apo_zero() -> None:
    """1 - sigmoid(beta dc) + sigmoid(beta dr)."""
    ratios = 0.5 * (POLICY - REFERENCE)
    pair = loss_of(POLICY, 0.0)[0] + loss_of(POLICY, 0.0)[2]
    assert pair.item() == pytest.approx((1 - ratios[0].sigmoid() + ratios[2].sigmoid()).item(), rel=1e-15)


def test_apo_zero_unpaired_is_kto_at_reference_point_zero() -> None:
    losses, _ = apo_zero_unpaired_loss(POLICY, REFERENCE, LABELS, beta=0.5, desirable_weight=1.2, undesirable_weight=1)
    assert torch.equal(losses, loss_of(POLICY, 0.0, desirable=1.2))


def test_kto_gradient_lifts_desirable_lowers_undesirable_and_spares_the_reference_point() -> None:
    policy, point = POLICY.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64).requires_grad_()
    losses, _ = kto_loss(policy, REFERENCE, LABELS, point, beta=0.5, desirable_weight=1, undesirable_weight=1)
    losses.sum().backward()
    assert policy.grad.sign().tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert point.grad is None


def test_weights_are_exact_in_float64() -> None:
    """1.33 is no float32; the loss of a float64 input must not go through one."""
    assert loss_of(REFERENCE, 0.0, undesirable=1.33)[3].item() == 1.33 * 0.5


def test_kto_metrics_say_which_side_of_the_reference_point_a_response_is_on() -> None:
    """Log-ratios 2, -1, 0 and 3 against 0: right, wrong, a tie, wrong."""
    _, metrics = kto_loss(
        POLICY,
        REFERENCE,
        LABELS,
        torch.tensor(0.0, dtype=torch.float64),
        beta=0.5,
        desirable_weight=1,
        undesirable_weight=1,
    )
    assert metrics["rewards"].tolist() == [1.0, -0.5, 0.0, 1.5]
    assert metrics["reward_accuracies"].tolist() == [1.0, 0.0, 0.5, 0.0]


def context_of(policy: list[float], reference: list[float]) -> SimpleNamespace:
    """Stands for the engine's `StepContext`: what it scored, and its mean over the global batch (0 of nothing)."""
    scored = (torch.tensor(policy), torch.tensor(reference))
    return SimpleNamespace(mismatched=lambda: scored, mean=lambda values: values.sum() / max(len(values), 1))


def test_reference_point_is_the_mean_mismatched_log_ratio() -> None:
    assert estimate_kl_reference_point(context_of([-1.0, -2.0], [-3.0, -3.0])).item() == 1.5


def test_reference_point_is_never_negative() -> None:
    assert estimate_kl_reference_point(context_of([-4.0], [-3.0])).item() == 0.0


def test_reference_point_of_a_single_prompt_is_zero() -> None:
    assert estimate_kl_reference_point(context_of([], [])).item() == 0.0
