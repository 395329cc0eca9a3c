"""DPO with an attenuated reference."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of
from torch import Tensor

from mmalign_objectives.pairs.cpo import cpo_loss
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.dpo_gamma import dpo_gamma_loss


def loss_of(pairs: Tensor, gamma: float = 0.5) -> Tensor:
    return dpo_gamma_loss(*pairs.unbind(1), beta=0.3, gamma=gamma)[0]


def test_dpo_gamma_by_hand() -> None:
    """Policy margin -2, reference margin 1.5, gamma 0.5, beta 4/11: -1."""
    loss, _ = dpo_gamma_loss(*PAIRS[1:2].unbind(1), beta=4 / 11, gamma=0.5)
    assert loss.item() == pytest.approx(1.3132616875182228, rel=1e-14)


def test_dpo_gamma_agrees_with_a_longhand_reference() -> None:
    for (pc, pr, rc, rr), loss in zip(PAIRS.tolist(), loss_of(PAIRS, 0.7), strict=True):
        margin = 0.3 * ((pc - pr) - 0.7 * (rc - rr))
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-margin)), rel=1e-14)


def test_gamma_1_is_dpo_and_gamma_0_the_preference_term_of_cpo() -> None:
    dpo, _ = dpo_loss(*PAIRS.unbind(1), beta=0.3, label_smoothing=0.0)
    none = {"nll_weight": 0.0, "label_smoothing": 0.0, "link": "logistic", "alpha": 0.0}
    cpo, _ = cpo_loss(PAIRS[:, 0], PAIRS[:, 1], PAIRS[:, 0], beta=0.3, **none)
    assert torch.allclose(loss_of(PAIRS, 1.0), dpo, rtol=1e-14)
    assert torch.allclose(loss_of(PAIRS, 0.0), cpo, rtol=1e-14)


def test_a_wrong_ranking_of_the_reference_weighs_less_with_a_lower_gamma() -> None:
    """The reference prefers the rejected response: less of it asks for more, so the gradient grows."""
    pairs = torch.tensor([[-7.0, -6.0, -8.0, -6.0]], dtype=torch.float64)
    strong, weak = (gradient_of(lambda values, g=gamma: loss_of(values, g), pairs)[0, 0] for gamma in (0.0, 1.0))
    assert strong < weak < 0
