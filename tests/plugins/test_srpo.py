"""Self-improving robust preference optimisation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmalign_objectives.pairs.srpo import srpo_loss

BETA = 0.3


def loss_of(policy: Tensor, reference: Tensor, improver_weight: float, beta: float = BETA) -> Tensor:
    """Takes rows of (c, r, r to c, c to r, c to c, r to r)."""
    return srpo_loss(*policy.unbind(1), *reference.unbind(1), beta=beta, improver_weight=improver_weight)[0]


def rows(seed: int, count: int = 4) -> Tensor:
    return -10 * torch.rand(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_srpo_by_hand() -> None:
    """All log-ratios 0 but the one of r to c, 1, at beta 0.5: (1/2 - 1/4)^2 and (1/2 - 1/2)^2 + (1/2)^2."""
    reference = rows(0, 1)
    policy = reference + torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    assert loss_of(policy, reference, 0.0, beta=0.5).item() == pytest.approx(0.0625, rel=1e-12)
    assert loss_of(policy, reference, 1.0, beta=0.5).item() == pytest.approx(0.25, rel=1e-12)
    assert loss_of(policy, reference, 0.25, beta=0.5).item() == pytest.approx(0.75 * 0.0625 + 0.25 * 0.25, rel=1e-12)


def test_srpo_agrees_with_a_longhand_reference() -> None:
    policy, reference = rows(1), rows(2)
    ratios = (policy - reference).tolist()
    for (c, r, rc, cr, cc, rr), joint, improver in zip(
        ratios, loss_of(policy, reference, 0.0), loss_of(policy, reference, 1.0), strict=True
    ):
        assert joint.item() == pytest.approx((0.5 - BETA / 2 * (rc - cr + c - r)) ** 2, rel=1e-12)
        expected = (0.5 - BETA * (rc - rr)) ** 2 + (0.5 + BETA * (cr - cc)) ** 2
        assert improver.item() == pytest.approx(expected, rel=1e-12)


def test_where_the_policy_is_the_reference_the_parts_are_1_4_and_1_2() -> None:
    reference = rows(3)
    assert loss_of(reference, reference, 0.0).tolist() == [0.25] * 4
    assert loss_of(reference, reference, 1.0).tolist() == [0.5] * 4


def test_the_closed_form_optimum_solves_both_identities() -> None:
    """On a random problem with six answers: pi+(b|a) ~ ref(b|a) exp(P(b > a) / beta), pi(a) ~ ref(a) / Z(a).

    The loss takes chosen to be preferred for sure, so a pair is one for which P is 1; P(a > a) is 1/2.
    """
    generator = torch.Generator().manual_seed(4)
    reference = torch.rand(6, generator=generator, dtype=torch.float64)
    improver_reference = torch.rand(6, 6, generator=generator, dtype=torch.float64)
    reference, improver_reference = reference / reference.sum(), improver_reference / improver_reference.sum(1, True)
    order = torch.arange(6)
    wins = torch.where(order[:, None] == order, 0.5, (order[:, None] < order).double())  # [a, b]: P(b > a)
    improver = improver_reference * (wins / BETA).exp()
    partition = improver.sum(1, keepdim=True)
    policy = reference / partition[:, 0]
    answer = (policy / policy.sum() / reference).log()
    revision = (improver / partition / improver_reference).log()
    chosen, rejected = (order[:, None] > order).nonzero(as_tuple=True)
    ratios = [answer[chosen], answer[rejected], revision[rejected, chosen], revision[chosen, rejected]]
    ratios += [revision[chosen, chosen], revision[rejected, rejected]]
    policy_rows = torch.stack(ratios, dim=1)
    for weight in (0.0, 1.0):
        losses = loss_of(policy_rows, torch.zeros_like(policy_rows), weight)
        assert losses.abs().max().item() < 1e-25


def test_at_the_reference_good_revisions_rise_and_bad_ones_fall() -> None:
    policy = rows(5).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(policy, policy.detach(), 0.5).sum(), policy)
    assert gradient[0].sign().tolist() == [-1.0, 1.0, -1.0, 1.0, -1.0, 1.0]
