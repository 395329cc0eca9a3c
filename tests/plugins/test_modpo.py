"""Multi-objective DPO."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, gradient_of, margins
from pydantic import ValidationError
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.modpo import MODPOConfig, modpo_loss

CHOSEN = torch.tensor([[0.5, 1.0], [0.0, -1.0], [2.0, 0.3]], dtype=torch.float64)
REJECTED = torch.tensor([[-0.5, 0.0], [0.4, 0.0], [1.0, 0.7]], dtype=torch.float64)


def loss_of(
    pairs: Tensor, weights: tuple[float, ...] = (0.3, 0.2), link: str = "logistic", shift: float = 0.0
) -> Tensor:
    options = {"beta": 0.3, "margin_weights": weights, "link": link}
    count = len(weights)
    return modpo_loss(*pairs.unbind(1), CHOSEN[:, :count] + shift, REJECTED[:, :count] + shift, **options)[0]


def dpo(pairs: Tensor, beta: float) -> Tensor:
    return dpo_loss(*pairs.unbind(1), beta=beta, label_smoothing=0.0)[0]


def test_modpo_by_hand() -> None:
    """Margin 2 at beta 0.5 less 0.5 x 1, over 0.5: 1."""
    pairs, other = PAIRS[:1].unbind(1), torch.tensor([[1.0], [0.0]], dtype=torch.float64).split(1)
    loss, _ = modpo_loss(*pairs, *other, beta=0.5, margin_weights=(0.5,), link="logistic")
    assert loss.item() == pytest.approx(0.3132616875182228, rel=1e-14)


def test_modpo_agrees_with_a_longhand_reference() -> None:
    others = [
        0.3 * (c[0] - r[0]) + 0.2 * (c[1] - r[1]) for c, r in zip(CHOSEN.tolist(), REJECTED.tolist(), strict=True)
    ]
    for margin, other, loss, hinge in zip(
        margins(PAIRS).tolist(), others, loss_of(PAIRS), loss_of(PAIRS, link="hinge"), strict=True
    ):
        argument = (0.3 * margin - other) / 0.5
        assert loss.item() == pytest.approx(math.log(1 + math.exp(-argument)), rel=1e-13)
        assert hinge.item() == pytest.approx(max(0.0, 1 - argument), rel=1e-13)


def test_all_weight_on_the_labels_is_dpo() -> None:
    assert torch.allclose(loss_of(PAIRS, (0.0, 0.0)), dpo(PAIRS, 0.3), rtol=1e-14)


def test_equal_margin_rewards_are_dpo_at_a_higher_beta() -> None:
    options = {"beta": 0.3, "margin_weights": (0.3, 0.2), "link": "logistic"}
    losses, _ = modpo_loss(*PAIRS.unbind(1), CHOSEN, CHOSEN, **options)
    assert torch.allclose(losses, dpo(PAIRS, 0.6), rtol=1e-14)


def test_a_margin_reward_of_the_prompt_alone_changes_nothing() -> None:
    assert torch.allclose(loss_of(PAIRS, shift=7.0), loss_of(PAIRS), rtol=1e-13)


def test_pairs_whose_chosen_response_is_better_in_other_respects_too_pull_harder() -> None:
    """The margin has to exceed that of the other rewards, so it is further from enough."""
    better, worse = (CHOSEN, REJECTED), (REJECTED, CHOSEN)
    pairs = PAIRS[[0, 0, 0]]

    def weight(others: tuple[Tensor, Tensor]) -> Tensor:
        options = {"beta": 0.3, "margin_weights": (0.3, 0.2), "link": "logistic"}
        return gradient_of(lambda values: modpo_loss(*values.unbind(1), *others, **options)[0], pairs)[0, 0]

    assert weight(better) < weight(worse) < 0


def test_weights_that_leave_nothing_to_the_labels_and_wrong_counts_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"leave something of 1 to the labels, got a sum of 1\.0"):
        MODPOConfig(margin_weights=(0.5, 0.5))
    with pytest.raises(ValueError, match="margin_weights: 1 of them for 2 rewards"):
        modpo_loss(*PAIRS.unbind(1), CHOSEN, REJECTED, beta=0.3, margin_weights=(0.5,), link="logistic")
