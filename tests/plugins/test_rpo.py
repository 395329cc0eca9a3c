"""Regularised preference optimisation."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import AT_THE_REFERENCE, PAIRS, gradient_of, margins
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.rpo import rpo_mean_loss, rpo_sum_loss
from mmalign_objectives.pairs.vpo import vpo_loss

LENGTHS = torch.tensor([4.0, 2.0, 7.0], dtype=torch.float64)


def summed(pairs: Tensor, eta: float = 0.2) -> Tensor:
    return rpo_sum_loss(*pairs.unbind(1), beta=0.3, eta=eta)[0]


def averaged(pairs: Tensor, eta: float = 0.2) -> Tensor:
    return rpo_mean_loss(*pairs.unbind(1), pairs[:, 0] / LENGTHS[: len(pairs)], beta=0.3, eta=eta)[0]


def test_rpo_by_hand() -> None:
    """At the reference ln 2, plus 0.2 x 0.3 x 10 and 0.2 x 10 / 4."""
    assert summed(AT_THE_REFERENCE[:1]).item() == pytest.approx(math.log(2) + 0.6, rel=1e-15)
    assert averaged(AT_THE_REFERENCE[:1]).item() == pytest.approx(math.log(2) + 0.5, rel=1e-15)


def test_rpo_agrees_with_a_longhand_reference() -> None:
    rows = zip(margins(PAIRS).tolist(), PAIRS[:, 0].tolist(), LENGTHS.tolist(), strict=True)
    for (margin, chosen, length), total, mean in zip(rows, summed(PAIRS), averaged(PAIRS), strict=True):
        preference = math.log(1 + math.exp(-0.3 * margin))
        assert total.item() == pytest.approx(preference - 0.06 * chosen, rel=1e-14)
        assert mean.item() == pytest.approx(preference - 0.2 * chosen / length, rel=1e-14)


@pytest.mark.parametrize("loss", [summed, averaged])
def test_rpo_without_imitation_is_dpo(loss) -> None:
    dpo, _ = dpo_loss(*PAIRS.unbind(1), beta=0.3, label_smoothing=0.0)
    assert torch.equal(loss(PAIRS, eta=0.0), dpo)


def test_rpo_sum_is_pessimistic_vpo_up_to_the_log_prob_of_the_reference() -> None:
    """Equal gradients for the policy; the losses differ by eta beta rc."""

    def vpo(pairs: Tensor) -> Tensor:
        return vpo_loss(*pairs.unbind(1), beta=0.3, incentive=-0.2, calibration="chosen")[0]

    assert torch.allclose(vpo(PAIRS) - summed(PAIRS), 0.2 * 0.3 * PAIRS[:, 2], rtol=1e-13)
    assert torch.allclose(gradient_of(vpo, PAIRS)[:, :2], gradient_of(summed, PAIRS)[:, :2], rtol=1e-14)


def test_imitation_lifts_the_chosen_response_even_where_the_preference_is_settled() -> None:
    settled = torch.tensor([[-1.0, -1e4, -1.0, -1.0]], dtype=torch.float64)
    assert gradient_of(summed, settled)[0].tolist() == [pytest.approx(-0.06), 0.0, 0.0, 0.0]
