"""DPO and conservative DPO."""

from __future__ import annotations

import math

import pytest
import torch

from mmalign_objectives.pairs.dpo import CDPOConfig, DPOConfig, dpo_loss
from mmalign_objectives.pairs.simpo import simpo_loss

PAIRS = torch.tensor(
    [[-10.0, -12.0, -11.0, -11.0], [-5.0, -3.0, -4.5, -6.0], [-7.0, -7.0, -7.0, -7.0]], dtype=torch.float64
)


def loss_of(pairs: torch.Tensor, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """Takes rows of (policy chosen, policy rejected, reference chosen, reference rejected)."""
    return dpo_loss(*pairs.unbind(1), beta=beta, label_smoothing=label_smoothing)[0]


def margin_of(pairs: torch.Tensor) -> torch.Tensor:
    return (pairs[:, 0] - pairs[:, 2]) - (pairs[:, 1] - pairs[:, 3])


def test_dpo_loss_by_hand() -> None:
    """Log-ratios +1 and -1, so the margin is 2; beta 0.5 makes it 1: ln(1 + exp(-1)) = 0.3132616875182228."""
    assert loss_of(PAIRS[:1], beta=0.5).item() == pytest.approx(0.3132616875182228, rel=1e-15)


def test_dpo_agrees_with_a_longhand_reference() -> None:
    for (pc, pr, rc, rr), loss in zip(PAIRS.tolist(), loss_of(PAIRS, 0.3, 0.2).tolist(), strict=True):
        probability = 1 / (1 + math.exp(-0.3 * ((pc - rc) - (pr - rr))))
        assert loss == pytest.approx(-0.8 * math.log(probability) - 0.2 * math.log(1 - probability), rel=1e-12)


def test_dpo_is_ln_2_where_the_policy_is_the_reference() -> None:
    pairs = PAIRS[:, [0, 1, 0, 1]]
    assert loss_of(pairs, beta=0.1).tolist() == pytest.approx([math.log(2)] * 3, rel=1e-15)


def test_dpo_does_not_see_a_shift_of_both_models() -> None:
    shift = torch.tensor([5.0, 0.0, 5.0, 0.0])
    assert torch.allclose(loss_of(PAIRS, 0.1), loss_of(PAIRS + shift, 0.1), rtol=0, atol=1e-14)


def test_swapping_chosen_and_rejected_costs_beta_times_the_margin() -> None:
    swapped = PAIRS[:, [1, 0, 3, 2]]
    assert torch.allclose(loss_of(PAIRS, 0.3) - loss_of(swapped, 0.3), -0.3 * margin_of(PAIRS), atol=1e-14)


def test_dpo_gradient_is_the_one_of_the_paper() -> None:
    """Equation 8: -beta sigmoid(-beta margin) for chosen, the opposite for rejected, nothing for the reference."""
    pairs = PAIRS.clone().requires_grad_()
    loss_of(pairs, beta=0.3).sum().backward()
    expected = 0.3 * torch.sigmoid(-0.3 * margin_of(PAIRS))
    assert torch.allclose(pairs.grad[:, 0], -expected, rtol=1e-14)
    assert torch.allclose(pairs.grad[:, 1], expected, rtol=1e-14)


def test_an_extreme_margin_gives_a_finite_loss() -> None:
    pairs = torch.tensor([[-1e4, 0.0, 0.0, 0.0]], requires_grad=True)
    loss = loss_of(pairs, beta=1.0)
    loss.backward()
    assert loss.item() == 1e4
    assert pairs.grad[0, 0].item() == -1.0


def test_cdpo_without_smoothing_is_dpo() -> None:
    assert torch.equal(loss_of(PAIRS, 0.3, 0.0), loss_of(PAIRS, 0.3))


def test_cdpo_at_one_half_is_even_in_the_margin() -> None:
    assert torch.allclose(loss_of(PAIRS, 0.3, 0.5), loss_of(PAIRS[:, [1, 0, 3, 2]], 0.3, 0.5), atol=1e-15)


def test_cdpo_gradient_vanishes_at_its_finite_optimum() -> None:
    """At beta margin = ln((1 - eps) / eps); beyond it the gradient pulls back."""
    optimum = math.log(0.9 / 0.1) / 0.3
    pairs = torch.zeros(2, 4).double()
    pairs[:, 0] = torch.tensor([optimum, optimum + 1], dtype=torch.float64)
    pairs.requires_grad_()
    loss_of(pairs, 0.3, 0.1).sum().backward()
    assert pairs.grad[0, 0].item() == pytest.approx(0, abs=1e-15)
    assert pairs.grad[1, 0].item() > 0


def test_the_preset_smooths_and_plain_dpo_does_not() -> None:
    assert (DPOConfig().label_smoothing, CDPOConfig().label_smoothing) == (0.0, 0.1)


def test_dpo_metrics_are_the_implicit_rewards() -> None:
    """Beta 0.5: rewards 0.5 and -0.5; the third pair is a tie."""
    _, metrics = dpo_loss(*PAIRS.unbind(1), beta=0.5, label_smoothing=0.0)
    assert metrics["chosen_rewards"][0].item() == 0.5
    assert metrics["rejected_rewards"][0].item() == -0.5
    assert metrics["reward_margins"].tolist() == [1.0, -1.75, 0.0]
    assert metrics["reward_accuracies"].tolist() == [1.0, 0.0, 0.5]


def test_dpo_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="reference_rejected: expected the shape"):
        dpo_loss(*PAIRS.unbind(1)[:3], PAIRS[:1, 3], beta=0.1, label_smoothing=0.0)


def test_length_normalised_dpo_is_dpo_where_all_lengths_are_equal() -> None:
    """With L steps each, beta / L: means are sums / L."""
    means, _ = dpo_loss(*(PAIRS / 5).unbind(1), beta=2.0, label_smoothing=0.0)
    assert torch.allclose(means, loss_of(PAIRS, beta=2.0 / 5), rtol=1e-14)


def test_length_normalised_dpo_is_simpo_where_the_reference_is_indifferent_per_step() -> None:
    lengths = torch.tensor([[4.0, 3.0, 4.0, 3.0]], dtype=torch.float64)
    means = PAIRS / lengths
    means[:, 3] = means[:, 2]
    options = {"gamma": 0.0, "label_smoothing": 0.0, "link": "logistic", "nll_weight": 0.0, "alpha": 0.0}
    simpo, _ = simpo_loss(means[:, 0], means[:, 1], beta=2.0, **options)
    assert torch.allclose(dpo_loss(*means.unbind(1), beta=2.0, label_smoothing=0.0)[0], simpo, rtol=1e-13)
