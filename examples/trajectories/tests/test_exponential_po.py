"""The objective: a number by hand, its limit, the sign of its gradient, and what its spec promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mmalign_trajectories.exponential_po import exponential_po_loss
from torch import Tensor
from torch.nn.functional import logsigmoid

import mmalign


def make_logps(*, seed: int = 0) -> list[Tensor]:
    """Policy chosen and rejected with gradient, reference chosen and rejected without; [5] each, float64."""
    generator = torch.Generator().manual_seed(seed)
    logps = [-10 * torch.rand(5, generator=generator, dtype=torch.float64) for _ in range(4)]
    return [logps[0].requires_grad_(), logps[1].requires_grad_(), *logps[2:]]


def gradient(loss: Callable[[Tensor], Tensor], logps: list[Tensor]) -> Tensor:
    chosen, rejected, reference_chosen, reference_rejected = logps
    margins = (chosen - reference_chosen) - (rejected - reference_rejected)
    return torch.autograd.grad(loss(margins).sum(), chosen)[0]


def test_a_loss_worked_out_by_hand() -> None:
    logps = [torch.tensor([value]) for value in (-7.0, -12.0, -10.0, -10.0)]
    losses, metrics = exponential_po_loss(*logps, beta=0.1)
    # log-ratios 3 and -2, margin 0.1 * 5
    assert losses.item() == pytest.approx(0.6065307, rel=1e-6)
    assert metrics["reward_margins"].item() == pytest.approx(0.5)
    assert metrics["reward_accuracies"].item() == 1


def test_a_policy_that_equals_its_reference_has_loss_one_and_ties() -> None:
    logps = torch.tensor([-3.0, -4.0])
    losses, metrics = exponential_po_loss(logps, logps, logps, logps, beta=0.1)
    assert losses.tolist() == [1, 1]
    assert metrics["reward_accuracies"].tolist() == [0.5, 0.5]


def test_descent_raises_chosen_and_lowers_rejected() -> None:
    logps = make_logps()
    losses, metrics = exponential_po_loss(*logps, beta=0.3)
    chosen, rejected = torch.autograd.grad(losses.sum(), logps[:2])
    assert (chosen < 0).all()
    torch.testing.assert_close(rejected, -chosen)
    assert not any(metric.requires_grad for metric in metrics.values())


def test_for_small_beta_the_gradient_is_twice_that_of_dpo() -> None:
    logps, beta = make_logps(), 1e-6
    losses, _ = exponential_po_loss(*logps, beta=beta)
    (own,) = torch.autograd.grad(losses.sum(), logps[0])
    torch.testing.assert_close(own, 2 * gradient(lambda margins: -logsigmoid(beta * margins), logps), rtol=1e-4, atol=0)


def test_it_weighs_mistakes_more_than_dpo_does() -> None:
    wrong = [torch.tensor([value], requires_grad=True) for value in (-20.0, -10.0)]
    logps = [*wrong, torch.tensor([-10.0]), torch.tensor([-10.0])]
    own = torch.autograd.grad(exponential_po_loss(*logps, beta=1.0)[0].sum(), logps[0])[0]
    # Margin -10: slopes -exp(10) and -sigmoid(10).
    assert own.item() == pytest.approx(-22026.4658, rel=1e-6)
    assert gradient(lambda margins: -logsigmoid(margins), logps).item() == pytest.approx(-0.9999546, rel=1e-6)


def test_the_engine_can_call_it() -> None:
    assert mmalign.try_part("objective", "exponential_po").constants == {"exponential_po": ()}
