"""Diffusion-KTO: denoising errors, utilities and the reference point of the batch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign_objectives.denoising.diffusion_kto import compute_batch_reference_point, diffusion_kto_loss
from mmalign_objectives.unpaired.kto import kto_loss

# Denoising errors 0.2, 0.3, 0.1, 0.4 of the policy and 0.3, 0.3, 0.3, 0.3 of the reference.
POLICY = -torch.tensor([0.2, 0.3, 0.1, 0.4], dtype=torch.float64) / 2
REFERENCE = -torch.full((4,), 0.3, dtype=torch.float64) / 2
LABELS = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
UTILITIES = ("kahneman_tversky", "loss_averse", "risk_seeking")


def loss_of(policy: Tensor, point: float = 0.0, utility: Any = "kahneman_tversky", beta: float = 10.0) -> Tensor:
    options = {"beta": beta, "desirable_weight": 1.0, "undesirable_weight": 1.0, "utility": utility}
    return diffusion_kto_loss(policy, REFERENCE, LABELS, torch.tensor(point, dtype=torch.float64), **options)[0]


def test_diffusion_kto_loss_by_hand() -> None:
    """Gains of 0.1, 0, 0.2 and -0.1 in error, times 10, and the label's sign: 1, 0, -2 and 1."""
    expected = [0.2689414213699951, 0.5, 0.8807970779778823, 0.2689414213699951]
    assert loss_of(POLICY).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("utility", UTILITIES)
def test_utilities_agree_with_a_longhand_reference(utility: str) -> None:
    """The reference point is 0.03 in log-probs, 0.06 in errors."""
    for gain, label, loss in zip([0.1, 0.0, 0.2, -0.1], LABELS, loss_of(POLICY, 0.03, utility), strict=True):
        signed = (1 if label else -1) * 10 * (gain - 0.06)
        value = {
            "kahneman_tversky": 1 / (1 + math.exp(-signed)),
            "loss_averse": -math.log(1 + math.exp(-signed)),
            "risk_seeking": math.log(1 + math.exp(signed)),
        }[utility]
        assert loss.item() == pytest.approx(1 - value, rel=1e-12)


def test_it_is_one_half_where_the_policy_is_the_reference() -> None:
    assert loss_of(REFERENCE).tolist() == [0.5] * 4


def test_equal_gains_are_no_gains() -> None:
    """All log-ratios are 0.05, and so is the reference point."""
    assert loss_of(REFERENCE + 0.05, point=0.05).tolist() == pytest.approx([0.5] * 4, rel=1e-12)


def test_its_loss_is_between_0_and_1_for_the_utility_of_the_paper_only() -> None:
    far = torch.tensor([-9.0, 9.0, 9.0, -9.0], dtype=torch.float64)
    assert bool(((loss_of(far) >= 0) & (loss_of(far) <= 1)).all())
    assert float(loss_of(far, utility="loss_averse").max()) > 1
    assert float(loss_of(far, utility="risk_seeking").min()) < 0


def test_it_is_kto_at_twice_the_beta() -> None:
    point = torch.tensor(0.02, dtype=torch.float64)
    kto, _ = kto_loss(POLICY, REFERENCE, LABELS, point, beta=20.0, desirable_weight=1.0, undesirable_weight=1.0)
    assert torch.allclose(loss_of(POLICY, 0.02), kto, rtol=1e-12)


@pytest.mark.parametrize("utility", UTILITIES)
def test_its_gradient_lifts_desirable_images_and_lowers_undesirable_ones(utility: str) -> None:
    policy = POLICY.clone().requires_grad_()
    loss_of(policy, 0.03, utility).sum().backward()
    assert policy.grad is not None
    assert policy.grad.sign().tolist() == [-1.0, -1.0, 1.0, 1.0]


@pytest.mark.parametrize("utility", UTILITIES)
def test_gradients_agree_with_finite_differences(utility: str) -> None:
    leaf = POLICY.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda policy: loss_of(policy, 0.03, utility), (leaf,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "labelled", "point"),
    [([1.5, 1.5], [True, True], 1.5), ([1.5, 2.0], [True, False], 1.0), ([-3.0, 2.0], [True, True], 0.0)],
)
def test_reference_point_is_the_mean_over_labelled_responses_or_0(
    policy: list[float], labelled: list[bool], point: float
) -> None:
    values = {
        "current_sequence_logps": torch.tensor(policy),
        "reference_sequence_logps": torch.tensor([0.5, -0.5]),
        "labelled": torch.tensor(labelled),
    }
    context: Any = SimpleNamespace(mean=lambda values: values.mean())
    assert compute_batch_reference_point(context, **values).item() == point
