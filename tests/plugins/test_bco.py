"""BCO, its shift and its weights."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmalign import EncodedResponse, Record
from mmalign.contract.batch import build_batch
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.unpaired.bco import bco_loss, compute_density_ratios, compute_mean_log_ratio

POLICY = torch.tensor([-3.0, -6.0, -5.0, -4.0], dtype=torch.float64)
REFERENCE = torch.tensor([-5.0, -5.0, -5.0, -7.0], dtype=torch.float64)
LABELS = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
ONES = torch.ones(4, dtype=torch.float64)
BETA = 0.5


def loss_of(policy: Tensor, shift: float, ratios: Tensor = ONES) -> Tensor:
    return bco_loss(policy, REFERENCE, LABELS, torch.tensor(shift, dtype=torch.float64), ratios, beta=BETA)[0]


def test_bco_loss_by_hand() -> None:
    """Log-ratio 2 at a mean of 2: ln 2; log-ratio 0, undesirable: -ls(0.5 * 2) = ln(1 + exp(-1))."""
    losses = loss_of(POLICY, 2.0)
    assert losses[0].item() == pytest.approx(math.log(2), rel=1e-15)
    assert losses[2].item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-15)


def test_bco_agrees_with_a_longhand_reference() -> None:
    ratios = torch.tensor([3.0, 0.5, 0.7, 4.0], dtype=torch.float64)
    for index, loss in enumerate(loss_of(POLICY, 0.7, ratios).tolist()):
        logit = BETA * (POLICY[index].item() - REFERENCE[index].item() - 0.7)
        sign, weight = (1, 1.0) if LABELS[index] else (-1, ratios[index].item())
        assert loss == pytest.approx(weight * math.log1p(math.exp(-sign * logit)), rel=1e-14)


@pytest.mark.parametrize("shift", [-4.0, -0.3, 0.0, 1.5, 10.0])
def test_both_losses_of_a_pair_bound_its_dpo_loss(shift: float) -> None:
    losses = loss_of(POLICY, shift)
    dpo = dpo_loss(POLICY[:2], POLICY[2:], REFERENCE[:2], REFERENCE[2:], beta=BETA, label_smoothing=0.0)[0]
    assert (losses[:2] + losses[2:] >= dpo).all()


def test_without_a_shift_a_pair_is_two_logistic_losses() -> None:
    rewards = BETA * (POLICY - REFERENCE)
    losses = loss_of(POLICY, 0.0)
    assert torch.allclose(losses[:2] + losses[2:], -logsigmoid(rewards[:2]) - logsigmoid(-rewards[2:]), rtol=1e-14)


def test_bco_gradient_lifts_desirable_lowers_undesirable_and_spares_the_shift() -> None:
    policy, shift = POLICY.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64).requires_grad_()
    bco_loss(policy, REFERENCE, LABELS, shift, 2 * ONES, beta=BETA)[0].sum().backward()
    assert policy.grad.sign().tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert shift.grad is None


def test_the_shift_is_the_running_mean_over_labelled_responses() -> None:
    quantities = {
        "current_sequence_logps": torch.tensor([1.0, 2.0, 30.0]),
        "reference_sequence_logps": torch.tensor([0.0, 4.0, 0.0]),
        "labelled": torch.tensor([True, True, False]),
    }
    asked: list[tuple[str, list[float]]] = []

    def running_mean(name: str, values: Tensor) -> Tensor:
        asked.append((name, values.tolist()))
        return values.mean()

    context = cast("Any", SimpleNamespace(running_mean=running_mean))
    assert compute_mean_log_ratio(context, **quantities).item() == -0.5
    assert asked == [("mean_log_ratio", [1.0, -2.0])]


def test_density_ratios_are_odds_within_limits() -> None:
    """0.75 is 3 to 1; 0.1 and certainty are cut; an unknown prompt weighs 1."""
    metas = ('{"desirability": 0.75}', '{"desirability": 0.1}', '{"desirability": 1}', None)
    records = [
        Record.from_text("a", ["x", "y"], id=str(index)).model_copy(update={"meta": meta})
        for index, meta in enumerate(metas)
    ]
    encoded = [[EncodedResponse({}, steps=1, size=1)] * 2 for _ in records]
    ratios = compute_density_ratios(build_batch(records, encoded, targets_only=False))
    assert ratios.tolist() == pytest.approx([3.0, 3.0, 0.5, 0.5, 10.0, 10.0, 1.0, 1.0])
