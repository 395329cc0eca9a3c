"""Tree preference optimisation."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.lists.lipo import lipo_lambda_loss, lipo_pair_logistic_loss
from mmalign_objectives.lists.tpo_tree import compare_branches, step_weights_of, tpo_tree_loss
from mmalign_objectives.pairs.dpo import dpo_loss

RATIOS = torch.tensor([[[0.5, -0.2, 0.3], [0.1, 0.4, 0.0], [-0.6, 0.2, 0.1]]], dtype=torch.float64)  # [1, 3, 3]
GRADES = torch.tensor([[1.0, 0.2, 0.6]], dtype=torch.float64)
MASK = torch.ones(1, 3, dtype=torch.bool)
EVEN = torch.ones(1, 3, 3, 3, dtype=torch.float64)
BETA = 0.5


def test_even_weights_are_lipo_lambda() -> None:
    losses, _ = compare_branches(RATIOS, EVEN, GRADES, MASK, beta=BETA)
    sums, prompts = RATIOS.sum(dim=2)[0], torch.zeros(3, dtype=torch.long)
    lipo, _ = lipo_lambda_loss(sums, torch.zeros_like(sums), GRADES[0], prompts, beta=BETA)
    assert losses.item() == pytest.approx(lipo.item(), rel=1e-13)


def test_two_branches_of_one_step_are_dpo_times_the_swap_weight() -> None:
    ratios, zeros = RATIOS[:, :2, :1], torch.zeros(1, dtype=torch.float64)
    losses, _ = compare_branches(ratios, EVEN[:, :2, :2, :1], GRADES[:, :2], MASK[:, :2], beta=BETA)
    dpo, _ = dpo_loss(ratios[0, 0], ratios[0, 1], zeros, zeros, beta=BETA, label_smoothing=0.0)
    weight = (2**1.0 - 2**0.2) * (1 / math.log(2) - 1 / math.log(3))
    assert losses.item() == pytest.approx(weight * dpo.item(), rel=1e-13)


def test_a_weighted_margin_by_hand() -> None:
    """Step margins 0.4, -0.6, 0.3 with weights 1, 2, 3: 0.1 in all, times beta 0.5."""
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).expand(1, 2, 2, 3)
    losses, _ = compare_branches(RATIOS[:, :2], weights, GRADES[:, :2], MASK[:, :2], beta=BETA)
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
    compare_branches(ratios, weights, GRADES, MASK, beta=BETA)[0].sum().backward()
    assert weights.grad is None
    best = ratios.grad[0, 0]
    assert (best < 0).all()
    assert torch.allclose(best / best[0], torch.tensor([1.0, 2.0, 3.0]).double(), rtol=1e-12)


def test_a_branch_that_does_not_count_has_no_part() -> None:
    mask = torch.tensor([[True, True, False]])
    losses, _ = compare_branches(RATIOS, EVEN, GRADES, mask, beta=BETA)
    alone, _ = compare_branches(RATIOS[:, :2], EVEN[:, :2, :2], GRADES[:, :2], mask[:, :2], beta=BETA)
    assert losses.item() == pytest.approx(alone.item(), rel=1e-14)


def test_over_the_swap_weight_a_pair_of_branches_is_the_logistic_loss_of_its_list() -> None:
    """Even weights and grades of one pair only: what the two losses differ by is the change of discounted gain."""
    grades = torch.tensor([[1.0, 0.2]], dtype=torch.float64)
    losses, _ = compare_branches(RATIOS[:, :2], EVEN[:, :2, :2], grades, MASK[:, :2], beta=BETA)
    sums, prompts = RATIOS[0, :2].sum(dim=1), torch.zeros(2, dtype=torch.long)
    logistic, _ = lipo_pair_logistic_loss(sums, torch.zeros_like(sums), grades[0], prompts, beta=BETA)
    swap = (2**1.0 - 2**0.2) * (1 / math.log(2) - 1 / math.log(3))
    assert losses.item() == pytest.approx(swap * logistic.item(), rel=1e-13)


# -- from scored steps

STEPS = torch.tensor([[1, 1, 2], [1, 2, 0], [1, 0, 0]])
POLICY = torch.tensor([[-1.0, -0.5, -0.2], [-0.7, -0.3, 9.0], [-1.1, math.nan, 8.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-0.8, -0.4, -0.6], [-0.9, -0.5, 7.0], [-1.0, 3.0, 6.0]], dtype=torch.float64)
EMBEDDINGS = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]]).double()
PROMPT = torch.zeros(3, dtype=torch.long)


def flat_loss(policy: torch.Tensor, embeddings: torch.Tensor = EMBEDDINGS, grades: torch.Tensor = GRADES[0]):
    return tpo_tree_loss(policy, REFERENCE, STEPS, embeddings, grades, PROMPT, beta=BETA)


def test_steps_are_sums_of_log_ratios_weighted_by_their_embeddings() -> None:
    """Log-ratios of the steps: -0.3, 0.4 | 0.2, 0.2 | -0.1, none. Steps 1 are orthogonal, alike, orthogonal."""
    ratios = torch.tensor([[[-0.3, 0.4], [0.2, 0.2], [-0.1, 0.0]]], dtype=torch.float64)
    one_two, one_three, two_three = [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]
    same = [1.0, 1.0]
    weights = torch.tensor([[[same, one_two, one_three], [one_two, same, two_three], [one_three, two_three, same]]])
    expected, _ = compare_branches(ratios, weights.double(), GRADES, MASK, beta=BETA)
    assert flat_loss(POLICY)[0].item() == pytest.approx(expected.item(), rel=1e-12)


def test_what_belongs_to_no_step_gets_no_gradient() -> None:
    policy = POLICY.clone().requires_grad_()
    flat_loss(policy)[0].sum().backward()
    assert torch.equal(policy.grad != 0, STEPS > 0)


def test_equal_embeddings_are_lipo_lambda_of_the_whole_responses() -> None:
    """With as many steps in every branch; a missing one would weigh twice."""
    steps, even = torch.tensor([[1, 1, 2], [1, 2, 2], [1, 2, 2]]), torch.ones(3, 2, 4, dtype=torch.float64)
    policy, reference = POLICY.nan_to_num(-0.4), REFERENCE
    losses, _ = tpo_tree_loss(policy, reference, steps, even, GRADES[0], PROMPT, beta=BETA)
    lipo, _ = lipo_lambda_loss(policy.sum(dim=1), reference.sum(dim=1), GRADES[0], PROMPT, beta=BETA)
    assert losses.item() == pytest.approx(lipo.item(), rel=1e-12)


def test_a_branch_without_a_grade_has_no_part() -> None:
    grades = GRADES[0].clone()
    grades[2] = torch.nan
    losses, _ = flat_loss(POLICY, grades=grades)
    alone, _ = tpo_tree_loss(POLICY[:2], REFERENCE[:2], STEPS[:2], EMBEDDINGS[:2], grades[:2], PROMPT[:2], beta=BETA)
    assert losses.item() == pytest.approx(alone.item(), rel=1e-14)


def test_equal_grades_in_another_order_are_the_same_loss() -> None:
    grades, order = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64), [0, 2, 1]
    losses, _ = flat_loss(POLICY, grades=grades)
    permuted, _ = tpo_tree_loss(
        POLICY[order], REFERENCE[order], STEPS[order], EMBEDDINGS[order], grades[order], PROMPT, beta=BETA
    )
    assert losses.item() == pytest.approx(permuted.item(), rel=1e-12)
