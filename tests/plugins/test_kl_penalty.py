"""KL estimators."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.penalties.kl_penalty import estimate_kl, kl_penalty_loss

POLICY = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
REFERENCE = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64)
ALL = torch.ones(1, 3, dtype=torch.bool)
ESTIMATORS = ("k1", "k2", "k3")


def test_kl_estimates_by_hand() -> None:
    """Probability 1/2 against 1/4: d = ln 2; k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 1/2 + ln 2 - 1."""
    half, quarter = torch.tensor(0.5, dtype=torch.float64).log(), torch.tensor(0.25, dtype=torch.float64).log()
    values = [estimate_kl(half, quarter, estimator=name).item() for name in ESTIMATORS]
    expected = [math.log(2), math.log(2) ** 2 / 2, math.log(2) - 0.5]
    assert values == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_kl_is_zero_where_the_policy_is_the_reference(estimator) -> None:
    losses, _ = kl_penalty_loss(POLICY.log(), POLICY.log(), ALL, estimator=estimator)
    assert losses.tolist() == [[0.0, 0.0, 0.0]]


def test_k1_and_k3_are_unbiased_and_k3_is_never_negative() -> None:
    """Expected over a policy on three outcomes, both are sum p ln(p / q)."""
    exact = (POLICY * (POLICY / REFERENCE).log()).sum().item()
    for estimator in ("k1", "k3"):
        values = estimate_kl(POLICY.log(), REFERENCE.log(), estimator=estimator)
        assert (POLICY * values).sum().item() == pytest.approx(exact, rel=1e-13)
    assert (estimate_kl(POLICY.log(), REFERENCE.log(), estimator="k3") >= 0).all()


def expected_gradient(estimator) -> torch.Tensor:
    """The gradient with respect to the logits that sampling from the policy gives on average."""
    logits = POLICY.log().requires_grad_()
    logps = logits.log_softmax(dim=1)
    losses, _ = kl_penalty_loss(logps, REFERENCE.log(), ALL, estimator=estimator)
    return torch.autograd.grad((POLICY * losses).sum(), logits)[0]


def test_expected_gradients_are_those_that_the_module_promises() -> None:
    """k1: none. k2: that of KL(policy, reference). k3: that of KL(reference, policy)."""
    logits = POLICY.log().requires_grad_()
    logps = logits.log_softmax(dim=1)
    reverse = torch.autograd.grad((logps.exp() * (logps - REFERENCE.log())).sum(), logits, retain_graph=True)[0]
    forward = torch.autograd.grad(-(REFERENCE * logps).sum(), logits)[0]
    assert torch.allclose(expected_gradient("k1"), torch.zeros_like(POLICY), atol=1e-15)
    assert torch.allclose(expected_gradient("k2"), reverse, atol=1e-15)
    assert torch.allclose(expected_gradient("k3"), forward, atol=1e-15)


def test_only_the_policy_gets_a_gradient() -> None:
    policy, reference = POLICY.log().requires_grad_(), REFERENCE.log().requires_grad_()
    losses, metrics = kl_penalty_loss(policy, reference, ALL, estimator="k3")
    losses.sum().backward()
    assert reference.grad is None
    # Pulls up what the reference finds likelier, and down what it finds less likely.
    assert policy.grad.sign().tolist() == [[1.0, 1.0, -1.0]]
    assert not metrics["kl"].requires_grad


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_padding_that_is_not_finite_reaches_neither_kl_nor_gradient(estimator) -> None:
    policy = torch.tensor([[-1.0, float("nan")]], requires_grad=True)
    mask = torch.tensor([[True, False]])
    losses, metrics = kl_penalty_loss(policy, torch.tensor([[-2.0, float("inf")]]), mask, estimator=estimator)
    losses.sum().backward()
    assert losses[0, 1] == policy.grad[0, 1] == metrics["kl"][0, 1] == 0
    assert torch.isfinite(policy.grad).all()
