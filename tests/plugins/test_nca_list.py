"""NCA and InfoNCA of K responses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign_objectives.lists.nca_list import info_nca_loss, nca_list_loss, target_weights

POLICY = torch.tensor([-3.0, -6.0, -5.0, -4.0, -2.0], dtype=torch.float64)
REFERENCE = torch.tensor([-5.0, -5.0, -5.5, -7.0, -2.5], dtype=torch.float64)
GRADES = torch.tensor([0.9, 0.2, 0.6, 1.0, math.nan], dtype=torch.float64)
PROMPTS = torch.tensor([0, 0, 0, 1, 1])
BETA, ALPHA = 0.5, 0.3


def loss_of(loss=nca_list_loss, policy: Tensor = POLICY, grades: Tensor = GRADES, alpha: float = ALPHA) -> Tensor:
    return loss(policy, REFERENCE, grades, PROMPTS, beta=BETA, reward_temperature=alpha)[0]


def test_a_single_response_by_hand() -> None:
    """Reward 1.5, the only one: -ls(1.5) - ls(-1.5) = 0.2014132779827524 + 1.7014132779827524."""
    assert loss_of()[1].item() == pytest.approx(0.2014132779827524 + 1.7014132779827524, rel=1e-14)


@pytest.mark.parametrize("loss", [nca_list_loss, info_nca_loss])
def test_losses_agree_with_a_longhand_reference(loss) -> None:
    rewards = (BETA * (POLICY - REFERENCE))[:3].tolist()
    exps = [math.exp(grade / ALPHA) for grade in GRADES[:3].tolist()]
    weights = [value / sum(exps) for value in exps]
    if loss is nca_list_loss:
        expected = sum(
            a * math.log1p(math.exp(-s)) + math.log1p(math.exp(s)) / 3 for a, s in zip(weights, rewards, strict=True)
        )
    else:
        total = sum(math.exp(s) for s in rewards)
        expected = -sum(a * math.log(math.exp(s) / total) for a, s in zip(weights, rewards, strict=True))
    assert loss_of(loss)[0].item() == pytest.approx(expected, rel=1e-13)


def test_nca_is_two_ln_2_where_the_policy_is_the_reference() -> None:
    assert loss_of(policy=REFERENCE).tolist() == pytest.approx([2 * math.log(2)] * 2, rel=1e-14)


def test_two_responses_at_temperature_zero_are_the_pair_form() -> None:
    """-ls(beta dc) - ls(-beta dc) / 2 - ls(-beta dr) / 2."""
    rewards = BETA * (POLICY - REFERENCE)
    expected = -logsigmoid(rewards[0]) - logsigmoid(-rewards[0]) / 2 - logsigmoid(-rewards[1]) / 2
    grades = torch.tensor([0.9, 0.2, math.nan, math.nan, math.nan], dtype=torch.float64)
    assert loss_of(grades=grades, alpha=1e-3)[0].item() == pytest.approx(expected.item(), rel=1e-14)


def test_the_chosen_part_of_the_pair_form_is_best_at_ln_2() -> None:
    """sigmoid(beta dc) = 2/3; the gradient changes its sign there."""
    policy = (REFERENCE + math.log(2) / BETA).requires_grad_()
    grades = torch.tensor([0.9, 0.2, math.nan, math.nan, math.nan], dtype=torch.float64)
    loss_of(policy=policy, grades=grades, alpha=1e-3).sum().backward()
    assert policy.grad[0].item() == pytest.approx(0, abs=1e-15)
    assert policy.grad[1].item() > 0


def test_info_nca_sees_differences_of_rewards_only_and_nca_their_level() -> None:
    assert torch.allclose(loss_of(info_nca_loss, POLICY + 3)[0], loss_of(info_nca_loss)[0], rtol=1e-13)
    assert abs(loss_of(policy=POLICY + 3)[0] - loss_of()[0]) > 0.1


def test_target_weights_sum_to_one_over_what_counts() -> None:
    mask = torch.tensor([[True, True, False]])
    weights = target_weights(torch.tensor([[0.5, 0.1, 9.0]]), mask, 0.01)
    assert weights.sum().item() == pytest.approx(1.0)
    assert weights[0, 2].item() == 0
