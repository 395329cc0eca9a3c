"""SePPO: what becomes of the policy's own sample."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import gradient_of
from torch import Tensor

from mmalign_objectives.denoising.seppo import seppo_loss
from mmalign_objectives.pairs.dpo import dpo_loss

# The policy is ahead of the reference on chosen, behind, level; log-ratios (1, -1), (-2, 0.5), (0, 0.25).
PAIRS = torch.tensor(
    [[-1.0, -3.0, -2.0, -2.0], [-4.0, -1.5, -2.0, -2.0], [-2.0, -1.0, -2.0, -1.25]], dtype=torch.float64
)


def loss_of(pairs: Tensor, anchor: str = "sign") -> Tensor:
    return seppo_loss(*pairs.unbind(1), beta=0.5, anchor=anchor)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("anchor", "inside"), [("sign", [0.5 * 2, 0.5 * (-2 + 0.5), 0.0]), ("indicator", [0.5 * 2, 0.5 * -2, 0.0])]
)
def test_seppo_loss_by_hand(anchor: str, inside: list[float]) -> None:
    expected = [math.log(1 + math.exp(-one)) for one in inside]
    assert loss_of(PAIRS, anchor).tolist() == pytest.approx(expected, rel=1e-14)


def test_it_is_dpo_where_the_policy_is_ahead_on_chosen() -> None:
    dpo, _ = dpo_loss(*PAIRS[:1].unbind(1), beta=0.5, label_smoothing=0.0)
    assert torch.equal(loss_of(PAIRS[:1]), dpo)


@pytest.mark.parametrize("anchor", ["sign", "indicator"])
def test_it_is_ln_2_where_the_policy_is_the_reference(anchor: str) -> None:
    losses, metrics = seppo_loss(*PAIRS[:, [0, 1, 0, 1]].unbind(1), beta=0.5, anchor=anchor)  # type: ignore[arg-type]
    assert losses.tolist() == pytest.approx([math.log(2)] * 3, rel=1e-15)
    assert metrics["anchors"].tolist() == [0.0] * 3


@pytest.mark.parametrize(("anchor", "sample"), [("sign", [1.0, -1.0, 0.0]), ("indicator", [1.0, 0.0, 0.0])])
def test_its_gradient_lifts_chosen_and_the_sample_by_the_anchor(anchor: str, sample: list[float]) -> None:
    gradient = gradient_of(lambda pairs: loss_of(pairs, anchor), PAIRS)
    assert gradient[:, 0].sign().tolist() == [-1.0] * 3
    assert gradient[:, 1].sign().tolist() == sample


def test_no_gradient_flows_through_the_anchor() -> None:
    """The gradient for chosen is -beta sigmoid(-inside), that of a constant anchor."""
    gradient = gradient_of(loss_of, PAIRS[:1])
    assert gradient[0, 0].item() == pytest.approx(-0.5 / (1 + math.e), rel=1e-12)
