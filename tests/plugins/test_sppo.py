"""SPPO."""

from __future__ import annotations

import pytest
import torch
from pair_cases import AT_THE_REFERENCE, PAIRS, gradient_of, log_ratios
from torch import Tensor

from mmalign_objectives.pairs.sppo import sppo_hard_loss, sppo_loss


def hard(pairs: Tensor, beta: float = 0.25) -> Tensor:
    return sppo_hard_loss(*pairs.unbind(1), beta=beta)[0]


def test_sppo_hard_by_hand() -> None:
    """Log-ratios 1 and -1, targets 2 and -2: 1 + 1."""
    assert hard(PAIRS[:1]).item() == 2.0


def test_sppo_hard_agrees_with_a_longhand_reference() -> None:
    for chosen, rejected, loss in zip(*log_ratios(PAIRS), hard(PAIRS, beta=0.1), strict=True):
        assert loss.item() == pytest.approx((chosen.item() - 5) ** 2 + (rejected.item() + 5) ** 2, rel=1e-14)


def test_sppo_hard_is_zero_only_at_both_targets() -> None:
    pairs = torch.tensor([[2.0, -2.0, 0.0, 0.0], [3.0, -1.0, 0.0, 0.0]], dtype=torch.float64)
    assert hard(pairs).tolist() == [0.0, 2.0]


def test_sppo_hard_where_the_policy_is_the_reference() -> None:
    """1 / (2 beta^2)."""
    assert hard(AT_THE_REFERENCE).tolist() == [8.0] * 3


def test_sppo_hard_pulls_towards_its_targets() -> None:
    gradient = gradient_of(hard, PAIRS)
    chosen, rejected = log_ratios(PAIRS)
    assert torch.allclose(gradient[:, 0], 2 * (chosen - 2), rtol=1e-14)
    assert torch.allclose(gradient[:, 1], 2 * (rejected + 2), rtol=1e-14)


def test_sppo_takes_probabilities_of_any_response() -> None:
    """Win probability 0.75 at beta 0.25 asks for a log-ratio of 1; certain ones are those of a pair."""
    policy, reference = PAIRS[:, :2].flatten(), PAIRS[:, 2:].flatten()
    wins = torch.tensor([0.75, 1.0, 0.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    losses, metrics = sppo_loss(policy, reference, wins, beta=0.25)
    assert losses[0].item() == 0.0
    assert losses[3].item() == 9.0
    assert metrics["rewards"].tolist() == [0.25 * ratio for ratio in (1.0, -1.0, -0.5, 3.0, 1.0, -0.5)]
    certain, _ = sppo_loss(policy, reference, torch.tensor([1.0, 0.0] * 3, dtype=torch.float64), beta=0.25)
    assert torch.equal(certain.reshape(3, 2).sum(dim=1), hard(PAIRS))
