"""TRPA and the levels of responses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign import EncodedResponse, Record
from mmalign.contract.batch import build_batch
from mmalign.data.records import Label, Score
from mmalign_objectives.pairs.dpo import dpo_loss
from mmalign_objectives.pairs.trpa import compute_levels, trpa_loss

PAIRS = torch.tensor([[-1.0, -1.2, -1.1, -1.1], [-0.5, -0.3, -0.45, -0.6]], dtype=torch.float64)


def loss_of(levels: list[float], pairs: Tensor = PAIRS) -> Tensor:
    chosen_levels = torch.tensor(levels, dtype=torch.float64)
    return trpa_loss(*pairs.unbind(1), chosen_levels, beta=0.5, anisotropy=2.5)[0]


def test_trpa_loss_by_hand() -> None:
    """Margin 0.2 of mean log-ratios, beta 0.5, anisotropy 2.5: ln(1 + exp(-0.25)) = 0.5759394198788437."""
    assert loss_of([1.0, 1.0])[0].item() == pytest.approx(0.5759394198788437, rel=1e-14)


def test_pairs_of_other_levels_are_dpo_on_means() -> None:
    dpo = dpo_loss(*PAIRS.unbind(1), beta=0.5, label_smoothing=0.0)[0]
    assert torch.equal(loss_of([2.0, 3.0]), dpo)
    assert torch.equal(loss_of([math.nan, 3.0]), dpo)


def test_equal_lengths_without_anisotropy_are_dpo_on_sums() -> None:
    """Four steps each: sums are four times the means, so beta is a quarter."""
    dpo = dpo_loss(*(4 * PAIRS).unbind(1), beta=0.125, label_smoothing=0.0)[0]
    losses = trpa_loss(*PAIRS.unbind(1), torch.ones(2, dtype=torch.float64), beta=0.5, anisotropy=1.0)[0]
    assert torch.allclose(losses, dpo, rtol=1e-14)


def test_the_gradient_of_level_one_is_scaled() -> None:
    pairs = (PAIRS * 0).requires_grad_()
    loss_of([1.0, 2.0], pairs).sum().backward()
    assert pairs.grad[:, 0].tolist() == pytest.approx([-2.5 * 0.5 / 2, -0.5 / 2])


def test_levels_are_scores_of_that_name_or_ranks() -> None:
    """The second record has levels for some of its responses; the others are unknown, whatever their rank."""
    ranked = Record.from_text("a", ["x", "y", "z"], id="a")
    ranked = ranked.model_copy(update={"labels": (Label(kind="rank", order=(("r2",), ("r0", "r1"))),)})
    scores = tuple(
        Score(item=item, name="level", level="response", value=value) for item, value in (("r0", 3.0), ("r2", 2.0))
    )
    levelled = ranked.model_copy(update={"id": "b", "scores": scores})
    encoded = [[EncodedResponse({}, steps=1, size=1)] * 3] * 2
    levels = compute_levels(build_batch([ranked, levelled], encoded, targets_only=False))
    assert levels[:4].tolist() == [2.0, 2.0, 1.0, 3.0]
    assert levels[4].isnan()
    assert levels[5].item() == 2.0
