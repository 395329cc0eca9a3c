"""Tree preference optimisation."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.dpo import dpo_loss
from mmalign_objectives.lipo import lipo_lambda_loss
from mmalign_objectives.tpo_tree import step_weights_of, tpo_tree_loss

RATIOS = torch.tensor([[[0.5, -0.2, 0.3], [0.1, 0.4, 0.0], [-0.6, 0.2, 0.1]]], dtype=torch.float64)  # [1, 3, 3]
GRADES = torch.tensor([[1.0, 0.2, 0.6]], dtype=torch.float64)
MASK = torch.ones(1, 3, dtype=torch.bool)
EVEN = torch.ones(1, 3, 3, 3, dtype=torch.float64)
BETA = 0.5


def test_even_weights_are_lipo_lambda() -> None:
    losses, _ = tpo_tree_loss(RATIOS, EVEN, GRADES, MASK, beta=BETA)
    sums, prompts = RATIOS.sum(dim=2)[0], torch.zeros(3, dtype=torch.long)
    lipo, _ = lipo_lambda_loss(sums, torch.zeros_like(sums), GRADES[0], prompts, beta=BETA)
    assert losses.item() == pytest.approx(lipo.item(), rel=1e-13)


def test_two_branches_of_one_step_are_dpo_times_the_swap_weight() -> None:
    ratios, zeros = RATIOS[:, :2, :1], torch.zeros(1, dtype=torch.float64)
    losses, _ = tpo_tree_loss(ratios, EVEN[:, :2, :2, :1], GRADES[:, :2], MASK[:, :2], beta=BETA)
    dpo, _ = dpo_loss(ratios[0, 0], ratios[0, 1], zeros, zeros, beta=BETA, label_smoothing=0.0)
    weight = (2**1.0 - 2**0.2) * (1 / math.log(2) - 1 / math.log(3))
    assert losses.item() == pytest.approx(weight * dpo.item(), rel=1e-13)


def test_a_weighted_margin_by_hand() -> None:
    """Step margins 0.4, -0.6, 0.3 with weights 1, 2, 3: 0.1 in all, times beta 0.5."""
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).expand(1, 2, 2, 3)
    losses, _ = tpo_tree_loss(RATIOS[:, :2], weights, GRADES[:, :2], MASK[:, :2], beta=BETA)
    swap = (2**1.0 - 2**0.2) * (1 / math.log(2) - 1 / math.log(3))
    assert losses.item() == pytest.approx(swap * math.log1p(math.exp(-0.05)), rel=1e-13)


def test_step_weights_grow_with_the_difference_of_embeddings() -> None:
    """The same, an orthogonal and an opposite embedding."""
    embeddings = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]], [[-3.0, 0.0]]]])  # [1, 3, 1, 2]
    weights = step_weights_of(embeddings)[0, :, :, 0]
    assert weights[0].tolist() == pytest.approx([1.0, 2.0, 3.0])
    assert torch.equal(weights, weights.T)


def test_the_gradient_follows_the_weights_and_spares_them() -> None:
    ratios, weights = RATIOS.clone().requires_grad_(), (EVEN * torch.tensor([1.0, 2.0, 3.0])).requires_grad_()
    tpo_tree_loss(ratios, weights, GRADES, MASK, beta=BETA)[0].sum().backward()
    assert weights.grad is None
    best = ratios.grad[0, 0]
    assert (best < 0).all()
    assert torch.allclose(best / best[0], torch.tensor([1.0, 2.0, 3.0]).double(), rtol=1e-12)


def test_a_branch_that_does_not_count_has_no_part() -> None:
    mask = torch.tensor([[True, True, False]])
    losses, _ = tpo_tree_loss(RATIOS, EVEN, GRADES, mask, beta=BETA)
    alone, _ = tpo_tree_loss(RATIOS[:, :2], EVEN[:, :2, :2], GRADES[:, :2], mask[:, :2], beta=BETA)
    assert losses.item() == pytest.approx(alone.item(), rel=1e-14)
