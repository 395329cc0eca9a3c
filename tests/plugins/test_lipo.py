"""LiPO: every ranking loss on implicit rewards."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign_objectives.lists import lipo
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.hinge import hinge_loss

BETA = 0.5
POLICY = torch.tensor([-3.0, -6.0, -5.0, -4.0, -2.0, -7.0], dtype=torch.float64)
REFERENCE = torch.tensor([-5.0, -5.0, -5.5, -7.0, -2.5, -6.0], dtype=torch.float64)
GRADES = torch.tensor([0.9, 0.2, 0.6, math.nan, 1.0, 0.0], dtype=torch.float64)
PROMPTS = torch.tensor([0, 0, 0, 0, 1, 1])
NAMES = ("lambda", "point_square", "point_sigmoid", "pair_logistic", "pair_hinge", "pair_square", "list_mle", "softmax")


def loss_of(name: str, policy: Tensor = POLICY, **changes: Tensor) -> Tensor:
    inputs = {"reference": REFERENCE, "grades": GRADES, "prompts": PROMPTS, **changes}
    loss: Callable[..., Any] = getattr(lipo, f"lipo_{name}_loss")
    losses: Tensor = loss(policy, *inputs.values(), beta=BETA)[0]
    return losses


def longhand(name: str, scores: list[float], grades: list[float]) -> float:
    indices = range(len(scores))
    pairs = [(i, j) for i in indices for j in indices if grades[i] > grades[j]]
    log_sigmoid = lambda x: -math.log1p(math.exp(-x))  # noqa: E731
    exps = [math.exp(score) for score in scores]
    if name == "point_square":
        return sum((g - s) ** 2 for s, g in zip(scores, grades, strict=True))
    if name == "point_sigmoid":
        return -sum(g * log_sigmoid(s) + (1 - g) * log_sigmoid(-s) for s, g in zip(scores, grades, strict=True))
    if name == "pair_logistic":
        return -sum(log_sigmoid(scores[i] - scores[j]) for i, j in pairs)
    if name == "pair_hinge":
        return sum(max(0.0, 1 - (scores[i] - scores[j])) for i, j in pairs)
    if name == "pair_square":
        return sum((scores[i] - scores[j] - grades[i] + grades[j]) ** 2 for i, j in pairs)
    if name == "list_mle":
        order = sorted(indices, key=lambda i: -grades[i])
        return -sum(math.log(exps[i] / sum(exps[j] for j in order[k:])) for k, i in enumerate(order))
    if name == "softmax":
        return -sum(g / sum(grades) * math.log(e / sum(exps)) for g, e in zip(grades, exps, strict=True))
    rank = [1 + sum(other > score for other in scores) for score in scores]
    return -sum(
        abs((2 ** grades[i] - 2 ** grades[j]) * (1 / math.log(1 + rank[i]) - 1 / math.log(1 + rank[j])))
        * log_sigmoid(scores[i] - scores[j])
        for i, j in pairs
    )


@pytest.mark.parametrize("name", NAMES)
def test_losses_agree_with_a_longhand_reference(name: str) -> None:
    """The fourth response has no grade and takes no part."""
    scores = (BETA * (POLICY - REFERENCE)).tolist()
    expected = [longhand(name, scores[:3], GRADES[:3].tolist()), longhand(name, scores[4:], GRADES[4:].tolist())]
    assert loss_of(name).tolist() == pytest.approx(expected, rel=1e-13)


def test_list_mle_by_hand() -> None:
    """Two rewards 1 and 0, the better first: ln(1 + exp(-1)) = 0.3132616875182228."""
    pair = {"reference": torch.zeros(2).double(), "grades": torch.tensor([1.0, 0.0]), "prompts": torch.zeros(2).long()}
    assert loss_of("list_mle", torch.tensor([2.0, 0.0]).double(), **pair).item() == pytest.approx(
        0.3132616875182228, rel=1e-15
    )


@pytest.mark.parametrize("name", ["pair_logistic", "list_mle"])
def test_two_responses_are_dpo(name: str) -> None:
    pair = (POLICY[4:5], POLICY[5:], REFERENCE[4:5], REFERENCE[5:])
    assert loss_of(name)[1].item() == pytest.approx(
        dpo_loss(*pair, beta=BETA, label_smoothing=0.0)[0].item(), rel=1e-14
    )


def test_two_responses_with_the_hinge_are_the_hinge_of_pairs() -> None:
    pair = (POLICY[4:5], POLICY[5:], REFERENCE[4:5], REFERENCE[5:])
    assert loss_of("pair_hinge")[1].item() == pytest.approx(hinge_loss(*pair, beta=BETA)[0].item(), rel=1e-14)


def test_two_responses_with_lambda_are_dpo_times_a_constant() -> None:
    pair = (POLICY[4:5], POLICY[5:], REFERENCE[4:5], REFERENCE[5:])
    dpo = dpo_loss(*pair, beta=BETA, label_smoothing=0.0)[0].item()
    factor = abs(2.0**1 - 2.0**0) * (1 / math.log(2) - 1 / math.log(3))
    assert loss_of("lambda")[1].item() == pytest.approx(factor * dpo, rel=1e-14)


def test_softmax_with_one_hot_grades_is_the_first_term_of_list_mle() -> None:
    grades = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    scores = BETA * (POLICY - REFERENCE)[:3]
    changes = {"reference": REFERENCE[:3], "grades": grades, "prompts": PROMPTS[:3]}
    first_term = scores.logsumexp(0) - scores[1]
    assert loss_of("softmax", POLICY[:3], **changes).item() == pytest.approx(first_term.item(), rel=1e-14)


def test_lambda_weights_carry_no_gradient_and_use_the_current_ranks() -> None:
    """The gradient is that of the weighted logistic losses with constant weights."""
    policy = POLICY[4:].clone().requires_grad_()
    changes = {"reference": REFERENCE[4:], "grades": GRADES[4:], "prompts": PROMPTS[4:]}
    loss_of("lambda", policy, **changes).sum().backward()
    margin = BETA * ((POLICY - REFERENCE)[4] - (POLICY - REFERENCE)[5])
    slope = (1 / math.log(2) - 1 / math.log(3)) * BETA * torch.sigmoid(-margin)
    assert policy.grad.tolist() == pytest.approx([-slope.item(), slope.item()], rel=1e-14)


def test_lambda_pulls_where_the_policy_is_the_reference() -> None:
    """All rewards are tied at the start; were they given one rank, nothing would ever be learnt."""
    policy = REFERENCE.clone().requires_grad_()
    loss_of("lambda", policy).sum().backward()
    assert policy.grad[4] < 0 < policy.grad[5]


@pytest.mark.parametrize("name", NAMES)
def test_an_ungraded_response_gets_no_gradient(name: str) -> None:
    policy = POLICY.clone().requires_grad_()
    loss_of(name, policy).sum().backward()
    assert policy.grad[3].item() == 0
    assert policy.grad.isfinite().all()
    assert (policy.grad[4:] != 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_without_grades_has_loss_zero(name: str) -> None:
    policy = POLICY.clone().requires_grad_()
    losses = loss_of(name, policy, grades=GRADES.masked_fill(PROMPTS == 0, math.nan))
    losses.sum().backward()
    assert losses[0].item() == 0
    assert policy.grad[:4].tolist() == [0.0] * 4


def test_the_gain_of_a_rating_in_the_hundreds_is_finite() -> None:
    grades = torch.tensor([300.0, 1.0])
    changes = {"reference": REFERENCE[4:].float(), "grades": grades, "prompts": PROMPTS[4:]}
    assert loss_of("lambda", POLICY[4:].float(), **changes).isfinite().all()
