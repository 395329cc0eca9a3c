"""D3PO: steps of pairs, with ratios that are kept near 1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign_objectives.denoising.d3po import d3po_loss, d3po_online_loss

# Two steps; the second pair's rejected response has only one.
CHOSEN = torch.tensor([[0.05, -0.02], [0.30, 0.10]], dtype=torch.float64)
REJECTED = torch.tensor([[-0.03, 0.04], [-0.40, 7.00]], dtype=torch.float64)
FULL = torch.ones(2, 2, dtype=torch.bool)
SHORT = torch.tensor([[True, True], [True, False]])
ZEROS = torch.zeros(2, 2, dtype=torch.float64)


def loss_of(chosen: Tensor, rejected: Tensor, beta: float = 2.0, clip: float = 0.1) -> Tensor:
    return d3po_loss(chosen, rejected, ZEROS, ZEROS, FULL, SHORT, beta=beta, clip=clip)[0]


def test_d3po_loss_by_hand() -> None:
    """Pair 1: margins 0.08 and -0.06 times 2. Pair 2: one step, ln 1.1 - ln 0.9 times 2, so a logit of 2 ln(11 / 9)."""
    first = (math.log(1 + math.exp(-0.16)) + math.log(1 + math.exp(0.12))) / 2
    second = math.log(1 + (9 / 11) ** 2)
    assert loss_of(CHOSEN, REJECTED).tolist() == pytest.approx([first, second], rel=1e-12)


def test_each_response_has_its_own_reference_and_its_own_mask() -> None:
    """Margins 0.08 - (0.01 - 0.02) and, at the one step that both have, (0.03 - 0.05) - (0.02 + 0.01)."""
    chosen, rejected = torch.tensor([[0.05, 9.0], [0.03, 9.0]]), torch.tensor([[-0.03, 9.0], [0.02, 9.0]])
    references = torch.tensor([[0.01, 9.0], [0.05, 9.0]]), torch.tensor([[0.02, 9.0], [-0.01, 9.0]])
    only_first = torch.tensor([[True, False], [True, False]])
    for masks in ((only_first, only_first | True), (only_first | True, only_first)):
        losses, _ = d3po_loss(chosen, rejected, *references, *masks, beta=2.0, clip=0.5)
        expected = [math.log(1 + math.exp(-2 * margin)) for margin in (0.09, -0.05)]
        assert losses.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_band_of_pairs_by_reward_is_the_same() -> None:
    """A log-ratio of 0.3 is cut to ln 1.1 in both forms."""
    policy, zeros = torch.tensor([[0.3], [0.0]], dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    mask, rewards = torch.ones(2, 1, dtype=torch.bool), torch.tensor([1.0, 0.0])
    losses, _ = d3po_online_loss(policy, zeros, mask, rewards, torch.tensor([0, 0]), beta=2.0, clip=0.1)
    assert losses.item() == pytest.approx(math.log(1 + 1.1**-2), rel=1e-12)


def test_without_clipping_it_is_dpo_at_every_step() -> None:
    margin = CHOSEN[0] - REJECTED[0]
    expected = -torch.nn.functional.logsigmoid(2.0 * margin).mean()
    assert loss_of(CHOSEN, REJECTED, clip=0.999)[0].item() == pytest.approx(expected.item(), rel=1e-12)


def test_it_is_ln_2_where_the_policy_is_the_reference() -> None:
    assert loss_of(ZEROS, ZEROS).tolist() == pytest.approx([math.log(2)] * 2, rel=1e-15)


def test_its_gradient_lifts_chosen_lowers_rejected_and_is_0_outside_the_band() -> None:
    chosen, rejected = CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()
    loss_of(chosen, rejected).sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.sign().tolist() == [[-1.0, -1.0], [0.0, 0.0]]
    assert rejected.grad.sign().tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_outside_the_band_the_loss_is_constant() -> None:
    assert torch.equal(loss_of(CHOSEN, REJECTED)[1], loss_of(CHOSEN + 1, REJECTED - 1)[1])


def test_padding_that_is_not_finite_reaches_neither_loss_nor_gradient() -> None:
    rejected = REJECTED.masked_fill(~SHORT, math.nan).requires_grad_()
    losses = loss_of(CHOSEN, rejected)
    losses.sum().backward()
    assert torch.equal(losses, loss_of(CHOSEN, REJECTED))
    assert rejected.grad is not None
    assert rejected.grad[1, 1] == 0


def test_metrics_are_means_over_the_steps_of_a_pair() -> None:
    _, metrics = d3po_loss(CHOSEN, REJECTED, ZEROS, ZEROS, FULL, SHORT, beta=2.0, clip=0.1)
    assert metrics["reward_margins"].tolist() == pytest.approx([0.02, 2 * math.log(11 / 9)], rel=1e-12)
    assert metrics["reward_accuracies"].tolist() == [0.5, 1.0]
    assert metrics["clip_fraction"].tolist() == [0.0, 1.0]


# Two prompts, of three responses and of two; one response has no reward, and the second prompt's are equal.
LOGPS = torch.tensor([[0.05, -0.02], [-0.03, 0.04], [0.01, 0.03], [0.02, 0.05], [0.07, 0.0]], dtype=torch.float64)
PROMPTS = torch.tensor([3, 3, 3, 1, 1])


def online(rewards: list[float], logps: Tensor = LOGPS) -> Tensor:
    mask = torch.ones(5, 2, dtype=torch.bool)
    values = (logps, torch.zeros_like(logps), mask, torch.tensor(rewards, dtype=torch.float64), PROMPTS)
    return d3po_online_loss(*values, beta=2.0, clip=0.1)[0]


def test_a_group_is_the_mean_over_its_pairs() -> None:
    mask = torch.ones(3, 2, dtype=torch.bool)
    better, worse = LOGPS[[0, 0, 2]], LOGPS[[1, 2, 1]]
    zeros = torch.zeros_like(better)
    pairs, _ = d3po_loss(better, worse, zeros, zeros, mask, mask, beta=2.0, clip=0.1)
    losses = online([0.9, 0.1, 0.5, 0.4, 0.4])
    assert losses.tolist() == pytest.approx([0.0, pairs.mean().item()], rel=1e-12)


def test_responses_without_a_reward_and_ties_teach_nothing() -> None:
    logps = LOGPS.clone().requires_grad_()
    losses = online([0.9, math.nan, 0.5, 0.4, 0.4], logps)
    losses.sum().backward()
    assert logps.grad is not None
    assert (logps.grad != 0).any(dim=1).tolist() == [True, False, True, False, False]


def test_seven_samples_make_twenty_one_pairs() -> None:
    """Equal policies on both sides of a pair: ln 2 each, whatever the number; the gradient tells that all count."""
    logps = torch.zeros(7, 1, dtype=torch.float64, requires_grad=True)
    mask, rewards = torch.ones(7, 1, dtype=torch.bool), torch.arange(7.0)
    values = (logps, torch.zeros(7, 1, dtype=torch.float64), mask, rewards, torch.zeros(7).long())
    losses, _ = d3po_online_loss(*values, beta=1.0, clip=0.1)
    losses.sum().backward()
    assert losses.item() == pytest.approx(math.log(2), rel=1e-12)
    assert logps.grad is not None
    # Response i is better than i others and worse than 6 - i; each pair weighs 1/2 x 1/21.
    assert (logps.grad[:, 0] * 42).tolist() == pytest.approx([6 - 2 * i for i in range(7)], abs=1e-12)
