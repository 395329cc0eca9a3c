"""f-DPO and the divergences it chooses from."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, log_ratios
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.f_dpo import f_dpo_loss
from mmalign_objectives.support.divergences import alpha_rewards, divergence_rewards


def loss_of(pairs: Tensor, divergence: str, alpha: float = 0.5, beta: float = 0.3) -> Tensor:
    return f_dpo_loss(*pairs.unbind(1), divergence=divergence, alpha=alpha, beta=beta)[0]


def test_f_dpo_by_hand() -> None:
    """Log-ratios ln 2 and 0. Forward KL: margin 1/2, at beta 2 that is 1; Jensen-Shannon: ln(4/3) at beta 1."""
    pairs = torch.tensor([[math.log(2), 0.0, 0.0, 0.0]], dtype=torch.float64)
    assert loss_of(pairs, "forward_kl", beta=2.0).item() == pytest.approx(0.3132616875182228, rel=1e-14)
    assert loss_of(pairs, "jensen_shannon", beta=1.0).item() == pytest.approx(math.log(7 / 4), rel=1e-14)


@pytest.mark.parametrize(
    ("divergence", "derivative"),
    [
        ("reverse_kl", lambda u: math.log(u) + 1),
        ("forward_kl", lambda u: -1 / u),
        ("jensen_shannon", lambda u: math.log(2 * u / (1 + u))),
        ("alpha", lambda u: (1 - u**-0.5) / 0.5),
    ],
)
def test_f_dpo_agrees_with_a_longhand_reference(divergence: str, derivative) -> None:
    for chosen, rejected, loss in zip(*log_ratios(PAIRS), loss_of(PAIRS, divergence), strict=True):
        margin = derivative(math.exp(chosen.item())) - derivative(math.exp(rejected.item()))
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.3 * margin)), rel=1e-12)


def test_reverse_kl_is_dpo_and_alpha_tends_to_it() -> None:
    dpo, _ = dpo_loss(*PAIRS.unbind(1), beta=0.3, label_smoothing=0.0)
    assert torch.equal(loss_of(PAIRS, "reverse_kl"), dpo)
    assert torch.allclose(loss_of(PAIRS, "alpha", alpha=1e-9), dpo, rtol=1e-7)


def test_alpha_1_is_the_forward_kl() -> None:
    assert torch.equal(loss_of(PAIRS, "alpha", alpha=1.0), loss_of(PAIRS, "forward_kl"))


def test_the_coefficient_of_trl_is_one_minus_alpha() -> None:
    """TRL: (u^(a - 1) - 1) / (a - 1) with a = 1 - alpha."""
    log_ratio, a = torch.tensor(0.7, dtype=torch.float64), 0.3
    trl = (math.exp(0.7 * (a - 1)) - 1) / (a - 1)
    assert divergence_rewards(log_ratio, "alpha", 1 - a).item() == pytest.approx(trl, rel=1e-14)


def test_the_reward_of_jensen_shannon_is_bounded_by_ln_2() -> None:
    rewards = divergence_rewards(torch.tensor([0.0, 5.0, 1e4], dtype=torch.float64), "jensen_shannon")
    assert rewards[0].item() == pytest.approx(0, abs=1e-15)
    assert rewards[2].item() == pytest.approx(math.log(2), rel=1e-15)
    assert (rewards <= math.log(2)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_ratios_near_zero_give_finite_rewards(dtype: torch.dtype) -> None:
    assert torch.isfinite(divergence_rewards(torch.tensor([-1e4], dtype=dtype), "forward_kl")).all()


def test_alpha_rewards_bend_the_log_prob() -> None:
    """At alpha 0 none; (1 - exp(2 x 0.5)) / 0.5 at alpha 0.5 for a log-prob of -2."""
    logps = torch.tensor([-2.0], dtype=torch.float64)
    assert alpha_rewards(logps, 0.0) is logps
    assert alpha_rewards(logps, 0.5).item() == pytest.approx((1 - math.e) / 0.5, rel=1e-14)


@pytest.mark.parametrize("divergence", ["forward_kl", "jensen_shannon", "alpha"])
def test_f_dpo_raises_chosen_and_lowers_rejected_responses(divergence: str) -> None:
    gradient = gradient_of(lambda pairs: loss_of(pairs, divergence), PAIRS)
    assert (gradient[:, 0] < 0).all()
    assert (gradient[:, 1] > 0).all()
