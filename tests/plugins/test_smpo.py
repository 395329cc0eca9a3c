"""SmPO: weights by what a reward model thinks of a pair."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, margins
from pydantic import ValidationError
from torch import Tensor

from mmalign_objectives.denoising.smpo import SmPOConfig, smpo_loss
from mmalign_objectives.pairs.dpo import dpo_loss

CHOSEN = torch.tensor([8.0, 3.0, 5.0], dtype=torch.float64)
REJECTED = torch.tensor([3.0, 4.0, 1.0], dtype=torch.float64)


def loss_of(pairs: Tensor, chosen: Tensor = CHOSEN, rejected: Tensor = REJECTED, gamma: float = 10.0) -> Tensor:
    options = {"beta": 0.3, "gamma": gamma, "lowest_rating": 1.0, "highest_rating": 11.0}
    return smpo_loss(*pairs.unbind(1), chosen, rejected, **options)[0]


def test_smpo_loss_by_hand() -> None:
    """Ratings half a range apart: 10 tanh(1/4) = 2.449186624037092, times a margin of 2 x 0.3."""
    expected = math.log(1 + math.exp(-0.6 * 2.449186624037092))
    assert loss_of(PAIRS[:1], CHOSEN[:1], REJECTED[:1]).item() == pytest.approx(expected, rel=1e-12)


def test_smpo_agrees_with_a_longhand_reference() -> None:
    for margin, good, bad, loss in zip(margins(PAIRS).tolist(), CHOSEN, REJECTED, loss_of(PAIRS), strict=True):
        scaled = [math.exp((float(rating) - 1) / 10) for rating in (good, bad)]
        weight = 10 * (2 * scaled[0] / sum(scaled) - 1)
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-weight * 0.3 * margin)), rel=1e-12)


def test_equal_ratings_teach_nothing() -> None:
    assert loss_of(PAIRS, CHOSEN, CHOSEN).tolist() == pytest.approx([math.log(2)] * 3, rel=1e-15)
    assert bool((gradient_of(lambda pairs: loss_of(pairs, CHOSEN, CHOSEN), PAIRS) == 0).all())


def test_a_certain_preference_at_gamma_1_is_dpo() -> None:
    certain = loss_of(PAIRS, CHOSEN + 1e4, REJECTED, gamma=1.0)
    assert torch.allclose(certain, dpo_loss(*PAIRS.unbind(1), beta=0.3, label_smoothing=0.0)[0], rtol=1e-12)


def test_swapping_the_ratings_is_swapping_the_responses() -> None:
    assert torch.allclose(loss_of(PAIRS, REJECTED, CHOSEN), loss_of(PAIRS[:, [1, 0, 3, 2]]), rtol=1e-12)


def test_its_gradient_lifts_the_better_rated_response() -> None:
    gradient = gradient_of(loss_of, PAIRS)
    assert gradient[:, :2].sign().tolist() == [[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]


def test_ratings_get_no_gradient() -> None:
    ratings = CHOSEN.clone().requires_grad_()
    loss_of(PAIRS.clone().requires_grad_(), ratings).sum().backward()
    assert ratings.grad is None


@pytest.mark.parametrize("given", [{}, {"lowest_rating": 1.0, "highest_rating": 1.0}])
def test_the_range_of_ratings_must_be_said_and_not_be_empty(given: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="rating"):
        SmPOConfig.model_validate(given)
