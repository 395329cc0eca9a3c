"""The score-function policy gradient."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.policy_gradient.policy_gradient import policy_gradient_loss
from mmalign_objectives.policy_gradient.score_function import score_function_loss

LOGPS = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([2.0, -1.0], dtype=torch.float64)
MASK = torch.tensor([[True, True], [True, False]])


def test_score_function_loss_by_hand() -> None:
    losses, metrics = score_function_loss(LOGPS, ADVANTAGES, MASK)
    assert losses.tolist() == [[2.0, 4.0], [-0.5, 0.0]]
    assert metrics == {}


def test_its_gradient_is_that_of_the_clipped_loss_before_the_first_update() -> None:
    clip = {"clip_low": 1e-4, "clip_high": 1e-4, "dual_clip_limit": None}
    gradients = []
    for loss in (
        lambda logps: score_function_loss(logps, ADVANTAGES, MASK)[0],
        lambda logps: policy_gradient_loss(logps, LOGPS, ADVANTAGES, MASK, **clip)[0],
    ):
        logps = LOGPS.clone().requires_grad_()
        loss(logps).sum().backward()
        gradients.append(logps.grad)
    assert torch.equal(*gradients)
    assert gradients[0].sign().tolist() == [[-1.0, -1.0], [1.0, 0.0]]


def test_advantages_may_be_given_for_every_step() -> None:
    per_step = torch.tensor([[2.0, 2.0], [-1.0, -1.0]], dtype=torch.float64)
    assert torch.equal(score_function_loss(LOGPS, per_step, MASK)[0], score_function_loss(LOGPS, ADVANTAGES, MASK)[0])


def test_padding_that_is_not_finite_reaches_neither_loss_nor_gradient() -> None:
    logps = LOGPS.masked_fill(~MASK, math.nan).requires_grad_()
    losses, _ = score_function_loss(logps, ADVANTAGES, MASK)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logps.grad is not None
    assert logps.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="advantages"):
        score_function_loss(LOGPS, torch.ones(2, 3), MASK)
