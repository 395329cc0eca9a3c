"""Token-level DPO."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pair_cases import PAIRS, margins
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.tdpo import TDPO1Config, TDPO2Config, tdpo_loss

CHOSEN_KL = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
REJECTED_KL = torch.tensor([3.0, 0.25, 0.5], dtype=torch.float64)
TDPO1 = {"beta": 0.5, "alpha": 1.0, "constant_chosen_kl": False}
TDPO2 = {"beta": 0.5, "alpha": 0.5, "constant_chosen_kl": True}


def losses_of(chosen_kl: Tensor = CHOSEN_KL, rejected_kl: Tensor = REJECTED_KL, **options: Any) -> Tensor:
    return tdpo_loss(*PAIRS.T, chosen_kl, rejected_kl, **options)[0]


def test_tdpo1_by_hand() -> None:
    """Margin of log-ratios 2, KLs 1 and 3: the margin less their difference is 0, the loss ln 2."""
    assert losses_of(**TDPO1)[0].item() == pytest.approx(math.log(2), rel=1e-15)


@pytest.mark.parametrize("options", [TDPO1, TDPO2])
def test_tdpo_agrees_with_a_longhand_reference(options: dict[str, Any]) -> None:
    values = zip(*(one.tolist() for one in (margins(PAIRS), CHOSEN_KL, REJECTED_KL, losses_of(**options))), strict=True)
    for margin, chosen, rejected, loss in values:
        logit = options["beta"] * (margin - options["alpha"] * (rejected - chosen))
        assert loss == pytest.approx(math.log1p(math.exp(-logit)), rel=1e-13)


@pytest.mark.parametrize("kls", [(CHOSEN_KL, REJECTED_KL), (CHOSEN_KL, CHOSEN_KL)])
def test_without_a_difference_of_kls_tdpo_is_dpo(kls: tuple[Tensor, Tensor]) -> None:
    weight = {"alpha": 0.0} if kls[0] is not kls[1] else {}
    expected, _ = dpo_loss(*PAIRS.T, beta=0.5, label_smoothing=0.0)
    torch.testing.assert_close(losses_of(*kls, **{**TDPO1, **weight}), expected, rtol=1e-14, atol=0)


def test_the_two_forms_differ_in_the_gradient_of_the_chosen_kl() -> None:
    """TDPO1 raises it like a reward, TDPO2 leaves it alone; both lower the rejected one."""
    chosen, rejected = CHOSEN_KL.clone().requires_grad_(), REJECTED_KL.clone().requires_grad_()
    one = torch.autograd.grad(losses_of(chosen, rejected, **TDPO1).sum(), (chosen, rejected))
    two = torch.autograd.grad(
        losses_of(chosen, rejected, **TDPO2).sum(), (chosen, rejected), allow_unused=True, materialize_grads=True
    )
    torch.testing.assert_close(one[0], -one[1])
    assert (one[0] < 0).all() and (two[1] > 0).all()
    assert two[0].tolist() == [0.0, 0.0, 0.0]


def test_gradient_of_the_rejected_kl_is_that_of_the_logistic() -> None:
    rejected = REJECTED_KL.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(losses_of(CHOSEN_KL, rejected, **TDPO2).sum(), rejected)
    logits = 0.5 * (margins(PAIRS) - 0.5 * (REJECTED_KL - CHOSEN_KL))
    torch.testing.assert_close(gradient, 0.25 * torch.sigmoid(-logits))


def test_defaults_are_those_of_the_paper() -> None:
    assert TDPO1Config().model_dump() == {"beta": 0.1, "alpha": 1.0, "constant_chosen_kl": False}
    assert TDPO2Config().model_dump() == {"beta": 0.1, "alpha": 0.5, "constant_chosen_kl": True}
