"""KL on samples of the policy, with a leave-one-out baseline."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from mmalign_objectives.penalties.sampled_kl import sampled_kl_loss

PROMPTS = torch.tensor([0, 0, 1])
ALL = torch.ones(3, dtype=torch.bool)
POLICY = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
REFERENCE = torch.tensor([-3.0, -1.0, -5.0], dtype=torch.float64)


def test_sampled_kl_by_hand() -> None:
    """Log-ratios 2 and -1: ((-1) (2 + 1) + (-2) (-1 - 2)) / 2 = 1.5; alone, log-ratio 2: -3 x 2."""
    losses, metrics = sampled_kl_loss(POLICY, REFERENCE, PROMPTS, ALL)
    assert losses.tolist() == [1.5, -6.0]
    assert metrics["kl"].tolist() == [0.5, 2.0]


def test_only_the_sample_path_is_detached() -> None:
    policy = POLICY.clone().requires_grad_()
    sampled_kl_loss(policy, REFERENCE, PROMPTS, ALL)[0].sum().backward()
    assert policy.grad.tolist() == [1.5, -1.5, 2.0]


def test_stored_responses_take_no_part() -> None:
    """Of the first prompt only the first response is a sample, of the second none."""
    policy = POLICY.clone().requires_grad_()
    losses, metrics = sampled_kl_loss(policy, REFERENCE, PROMPTS, torch.tensor([True, False, False]))
    losses.sum().backward()
    assert losses.tolist() == [-2.0, 0.0]
    assert metrics["kl"].tolist() == [2.0, 0.0]
    assert policy.grad.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_expected_gradient_is_that_of_the_kl(samples: int) -> None:
    """Over all tuples of samples from three outcomes, weighted by their probability."""
    logits = torch.tensor([0.3, -0.5, 1.1], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.2, 0.1, -0.4], dtype=torch.float64).log_softmax(0)
    policy = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((policy.exp() * (policy - reference)).sum(), logits, retain_graph=True)
    expected: Tensor | float = 0.0
    for outcome in itertools.product(range(3), repeat=samples):
        rows = torch.tensor(outcome)
        prompts = torch.zeros(samples, dtype=torch.long)
        losses, _ = sampled_kl_loss(policy[rows], reference[rows], prompts, prompts == 0)
        expected = expected + policy[rows].sum().exp().detach() * losses[0]
    (gradient,) = torch.autograd.grad(expected, logits)
    assert torch.allclose(gradient, exact, rtol=1e-12, atol=1e-14)
