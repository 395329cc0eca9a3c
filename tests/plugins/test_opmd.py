"""Online policy mirror descent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign_objectives.policy_gradient.opmd import OPMDConfig, opmd_loss
from mmalign_objectives.policy_gradient.score_function import score_function_loss

LOGPS = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]], dtype=torch.float64)
BEHAVIOUR = torch.tensor([[-1.5, -2.0], [-0.25, -1.0]], dtype=torch.float64)
ADVANTAGES = torch.tensor([2.0, -1.0], dtype=torch.float64)
MASK = torch.tensor([[True, True], [True, False]])


def gradient(logps: Tensor, behaviour: Tensor, tau: float) -> Tensor:
    leaf = logps.clone().requires_grad_()
    opmd_loss(leaf, behaviour, ADVANTAGES, MASK, tau=tau)[0].sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def test_opmd_loss_by_hand() -> None:
    losses, metrics = opmd_loss(LOGPS, BEHAVIOUR, ADVANTAGES, MASK, tau=0.4)
    assert losses.tolist() == [[2.0 + 0.4 * 0.25, 4.0], [-0.5 + 0.4 * 0.0625, 0.0]]
    assert metrics["log_ratio"].tolist() == [[0.5, 0.0], [-0.25, 0.0]]


def test_its_gradient_by_hand() -> None:
    assert gradient(LOGPS, BEHAVIOUR, 0.4).tolist() == [[-2.0 + 0.8 * 0.5, -2.0], [1.0 - 0.8 * 0.25, 0.0]]


def test_before_the_first_update_its_gradient_is_the_score_function() -> None:
    leaf = LOGPS.clone().requires_grad_()
    score_function_loss(leaf, ADVANTAGES, MASK)[0].sum().backward()
    assert torch.equal(gradient(LOGPS, LOGPS, 0.4), leaf.grad)
    assert torch.equal(gradient(LOGPS, BEHAVIOUR, 0.0), leaf.grad)


def test_its_minimum_is_where_the_penalty_outweighs_the_advantage() -> None:
    """At a log-ratio of advantage / (2 tau): also a good step stops getting likelier."""
    shifted = BEHAVIOUR + (ADVANTAGES / (2 * 0.4))[:, None]
    assert gradient(shifted, BEHAVIOUR, 0.4).abs().max() < 1e-12


def test_advantages_may_be_given_for_every_step() -> None:
    per_step = ADVANTAGES[:, None].expand(2, 2)
    expected = opmd_loss(LOGPS, BEHAVIOUR, ADVANTAGES, MASK, tau=0.1)[0]
    assert torch.equal(opmd_loss(LOGPS, BEHAVIOUR, per_step, MASK, tau=0.1)[0], expected)


def test_padding_that_is_not_finite_reaches_neither_loss_nor_gradient() -> None:
    logps, behaviour = LOGPS.masked_fill(~MASK, math.nan), BEHAVIOUR.masked_fill(~MASK, math.inf)
    assert torch.equal(
        opmd_loss(logps, behaviour, ADVANTAGES, MASK, tau=0.1)[0],
        opmd_loss(LOGPS, BEHAVIOUR, ADVANTAGES, MASK, tau=0.1)[0],
    )
    assert torch.equal(gradient(logps, behaviour, 0.1), gradient(LOGPS, BEHAVIOUR, 0.1))


def test_neither_sampler_nor_advantage_gets_a_gradient() -> None:
    behaviour, advantages = BEHAVIOUR.clone().requires_grad_(), ADVANTAGES.clone().requires_grad_()
    assert not opmd_loss(LOGPS, behaviour, advantages, MASK, tau=0.1)[0].requires_grad


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="behaviour_logps"):
        opmd_loss(LOGPS, torch.ones(2, 3), ADVANTAGES, MASK, tau=0.1)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="tau"):
        OPMDConfig(tau=-0.1)
