"""Value-incentivised preference optimisation; its kinship with RPO is tested there."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import AT_THE_REFERENCE, PAIRS, gradient_of, log_ratios
from pydantic import ValidationError
from torch import Tensor

from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.vpo import VPOOfflineConfig, VPOOnlineConfig, vpo_loss


def loss_of(pairs: Tensor, incentive: float, calibration: str = "chosen") -> Tensor:
    return vpo_loss(*pairs.unbind(1), beta=0.5, incentive=incentive, calibration=calibration)[0]


def test_vpo_by_hand() -> None:
    """Margin 1 and a calibration reward of 0.5 (chosen) or -0.5 (rejected), incentive -0.1."""
    assert loss_of(PAIRS[:1], -0.1).item() == pytest.approx(0.3132616875182228 - 0.05, rel=1e-14)
    assert loss_of(PAIRS[:1], -0.1, "rejected").item() == pytest.approx(0.3132616875182228 + 0.05, rel=1e-14)


def test_vpo_agrees_with_a_longhand_reference() -> None:
    for chosen, rejected, loss in zip(*log_ratios(PAIRS), loss_of(PAIRS, 0.2, "rejected"), strict=True):
        preference = math.log(1 + math.exp(-0.5 * (chosen.item() - rejected.item())))
        assert loss.item() == pytest.approx(preference + 0.2 * 0.5 * rejected.item(), rel=1e-13)


def test_vpo_without_incentive_is_dpo() -> None:
    dpo, _ = dpo_loss(*PAIRS.unbind(1), beta=0.5, label_smoothing=0.0)
    assert torch.equal(loss_of(PAIRS, 0.0), dpo)


@pytest.mark.parametrize("calibration", ["chosen", "rejected"])
def test_the_sign_flips_the_gradient_of_the_value_only(calibration: str) -> None:
    plain, up, down = (
        gradient_of(lambda pairs, weight=weight: loss_of(pairs, weight, calibration), PAIRS)
        for weight in (0.0, 0.2, -0.2)
    )
    assert torch.allclose(up - plain, plain - down, atol=1e-15)
    place = ["chosen", "rejected"].index(calibration)
    assert (up - plain)[:, place].tolist() == pytest.approx([0.1] * 3, rel=1e-13)
    assert (up - plain)[:, 1 - place].tolist() == pytest.approx([0.0] * 3, abs=1e-15)


def test_pessimism_raises_and_optimism_lowers_the_calibration_response() -> None:
    settled = AT_THE_REFERENCE + torch.tensor([0.0, -1e4, 0.0, 0.0])
    pessimist = gradient_of(lambda pairs: loss_of(pairs, VPOOfflineConfig().incentive, "chosen"), settled)
    optimist = gradient_of(lambda pairs: loss_of(pairs, VPOOnlineConfig().incentive, "rejected"), settled)
    assert (pessimist[:, 0] < 0).all()
    assert (optimist[:, 1] > 0).all()


def test_a_sign_of_the_other_form_is_refused() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 0"):
        VPOOfflineConfig(incentive=0.1)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        VPOOnlineConfig(incentive=-0.1)
