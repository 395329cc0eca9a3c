"""Flex-DPO."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, log_ratios
from pydantic import ValidationError
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.flex_dpo import FlexDPOConfig, flex_dpo_loss


def loss_of(pairs: Tensor, chosen: float = 0.5, rejected: float = 0.3) -> Tensor:
    return flex_dpo_loss(*pairs.unbind(1), beta_chosen=chosen, beta_rejected=rejected)[0]


def test_flex_dpo_by_hand() -> None:
    """Log-ratios 1 and -1 at 0.6 and 0.4: margin 1."""
    assert loss_of(PAIRS[:1], 0.6, 0.4).item() == pytest.approx(0.3132616875182228, rel=1e-15)


def test_flex_dpo_agrees_with_a_longhand_reference() -> None:
    for chosen, rejected, loss in zip(*log_ratios(PAIRS), loss_of(PAIRS), strict=True):
        margin = 0.5 * chosen.item() - 0.3 * rejected.item()
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-margin)), rel=1e-14)


def test_equal_temperatures_are_dpo() -> None:
    dpo, _ = dpo_loss(*PAIRS.unbind(1), beta=0.5, label_smoothing=0.0)
    assert torch.equal(loss_of(PAIRS, 0.5, 0.5), dpo)


def test_without_a_temperature_rejected_responses_do_not_count() -> None:
    gradient = gradient_of(lambda pairs: loss_of(pairs, rejected=0.0), PAIRS)
    assert (gradient[:, 1] == 0).all()
    chosen, _ = log_ratios(PAIRS)
    assert torch.allclose(loss_of(PAIRS, rejected=0.0), torch.log1p(torch.exp(-0.5 * chosen)), rtol=1e-14)


def test_in_probability_space_the_lower_likelihood_moves_faster() -> None:
    """(dL/dpi_l) / (dL/dpi_w) = -(beta_rejected / beta_chosen) pi_w / pi_l."""
    gradient = gradient_of(loss_of, PAIRS)
    per_probability = gradient[:, :2] / PAIRS[:, :2].exp()
    expected = -0.3 / 0.5 * (PAIRS[:, 0] - PAIRS[:, 1]).exp()
    assert torch.allclose(per_probability[:, 1] / per_probability[:, 0], expected, rtol=1e-12)


def test_a_higher_temperature_of_rejected_responses_is_refused() -> None:
    with pytest.raises(ValidationError, match="beta_rejected: expected at most beta_chosen"):
        FlexDPOConfig(beta_chosen=0.1, beta_rejected=0.2)
