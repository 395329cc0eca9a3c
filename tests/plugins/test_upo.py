"""UPO's objective: smoothing of its own for every pair, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from pair_cases import PAIRS, margins
from torch import Tensor

from mmalign import Record, Score
from mmalign.contract.batch import build_batch
from mmalign.contract.values import EncodedResponse
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.upo import upo_loss
from mmalign_objectives.support.record_values import compute_label_smoothing

MEANS = torch.tensor([-1.0, -0.5, -2.0], dtype=torch.float64)


def losses_of(*smoothing: float, beta: float = 0.5, nll_weight: float = 0.0) -> Tensor:
    chosen = torch.tensor(smoothing, dtype=torch.float64)
    return upo_loss(*PAIRS.T, MEANS, chosen, beta=beta, nll_weight=nll_weight)[0]


@pytest.mark.parametrize("certain", [0.0, math.nan])
def test_certain_pairs_are_dpo(certain: float) -> None:
    expected, _ = dpo_loss(*PAIRS.T, beta=0.5, label_smoothing=0.0)
    torch.testing.assert_close(losses_of(certain, certain, certain), expected, rtol=1e-14, atol=0)


def test_every_pair_has_its_own_smoothing() -> None:
    found = losses_of(0.1, 0.25, 0.5, nll_weight=0.2)
    for row, (margin, smoothing) in enumerate(zip(margins(PAIRS).tolist(), (0.1, 0.25, 0.5), strict=True)):
        logit = 0.5 * margin
        kept, flipped = math.log1p(math.exp(-logit)), math.log1p(math.exp(logit))
        expected = (1 - smoothing) * kept + smoothing * flipped - 0.2 * MEANS[row].item()
        assert found[row].item() == pytest.approx(expected, rel=1e-13)


def test_a_coin_flip_is_even_in_the_margin() -> None:
    turned = PAIRS[:, [1, 0, 3, 2]]
    half = torch.full((3,), 0.5, dtype=torch.float64)
    options = {"beta": 0.5, "nll_weight": 0.0}
    torch.testing.assert_close(
        upo_loss(*turned.T, MEANS, half, **options)[0], upo_loss(*PAIRS.T, MEANS, half, **options)[0]
    )


def test_smoothing_is_read_from_the_chosen_response() -> None:
    record = Record.from_text("q", ["a", "b"], id="p")
    row = Score(item="r1", name="label_smoothing", level="vector", values=(0.25,), keys=("label_smoothing",))
    record = record.model_copy(update={"scores": (row,)})
    encoded = [[EncodedResponse({}, steps=1, size=2)] * 2]
    found = compute_label_smoothing(build_batch([record], encoded, targets_only=False))
    assert found[0].isnan() and found[1] == 0.25
