"""In-context ranking of the items of one response."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign import DataError, EncodedResponse, Record
from mmalign.contract.batch import Batch, build_batch
from mmalign.data.records import Score
from mmalign_objectives.lists.in_context_ranking import (
    compute_item_index,
    compute_item_relevance,
    in_context_ranking_loss,
    mark_ranked_items,
    rank_items,
)
from mmalign_objectives.pairs.dpo import dpo_loss

NAN = math.nan
INDEX = torch.tensor([[1, 1, 0, 2, 3, 3], [1, 2, 2, 2, 0, 0], [1, 1, 0, 0, 0, 0]])
RELEVANCE = torch.tensor(
    [[2.0, 2.0, NAN, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, NAN, NAN], [3.0, 3.0, NAN, NAN, NAN, NAN]],
    dtype=torch.float64,
)
LOG_RATIOS = torch.tensor(
    [[0.5, 0.1, 9.0, -0.4, 0.3, 0.5], [0.25, -0.25, 0.5, 0.5, NAN, NAN], [1.0, 2.0, NAN, NAN, NAN, NAN]],
    dtype=torch.float64,
)


def loss_of(log_ratios: Tensor = LOG_RATIOS, relevance: Tensor = RELEVANCE, beta: float = 0.7) -> Tensor:
    return in_context_ranking_loss(log_ratios, torch.zeros_like(log_ratios), INDEX, relevance, beta=beta)[0]


def longhand(means: list[float], relevance: list[float], beta: float) -> float:
    total = 0.0
    for place, (own, grade) in enumerate(zip(means, relevance, strict=True), start=1):
        rivals = [math.exp(beta * (other - own)) for spot, other in enumerate(means, start=1) if spot != place]
        z = math.log(sum(rivals) / len(rivals))
        total += (2**grade - 1) / math.log2(1 + place) * math.log1p(math.exp(z))
    return total / len(means)


def test_items_agree_with_a_longhand_reference() -> None:
    """Items are means over their steps; a step of no item, whatever it holds, does not count."""
    expected = [longhand([0.3, -0.4, 0.4], [2, 0, 1], 0.7), longhand([0.25, 0.25], [0, 1], 0.7)]
    assert loss_of()[:2].tolist() == pytest.approx(expected, rel=1e-13)


def test_what_is_ranked_are_log_ratios_to_the_reference() -> None:
    reference = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(3, 6)
    losses, _ = in_context_ranking_loss(LOG_RATIOS + reference, reference, INDEX, RELEVANCE, beta=0.7)
    torch.testing.assert_close(losses, loss_of())


def test_in_context_ranking_by_hand() -> None:
    """Two equal items, only the first relevant: (1 / 2) ln 2."""
    losses, _ = rank_items(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool), beta=1.0)
    assert losses.item() == pytest.approx(math.log(2) / 2)


def test_two_items_are_half_a_dpo_loss() -> None:
    ratios = torch.tensor([[0.8, -0.5]], dtype=torch.float64)
    losses, _ = rank_items(ratios, torch.tensor([[1.0, 0.0]]).double(), torch.ones(1, 2, dtype=torch.bool), beta=0.7)
    zeros = torch.zeros(1, dtype=torch.float64)
    dpo, _ = dpo_loss(ratios[:, 0], ratios[:, 1], zeros, zeros, beta=0.7, label_smoothing=0.0)
    assert losses.item() == pytest.approx(dpo.item() / 2, rel=1e-14)


def test_irrelevant_items_cost_nothing() -> None:
    assert loss_of(relevance=torch.where(RELEVANCE.isnan(), RELEVANCE, 0.0)).tolist() == [0.0, 0.0, 0.0]


def test_a_single_item_has_no_rival_and_no_gradient() -> None:
    log_ratios = LOG_RATIOS.nan_to_num().requires_grad_()
    losses = loss_of(log_ratios)
    losses.sum().backward()
    assert losses[2].item() == 0
    assert (log_ratios.grad[2] == 0).all()
    assert (log_ratios.grad[INDEX == 0] == 0).all()


def test_the_gradient_lifts_a_relevant_item_and_lowers_its_rivals() -> None:
    log_ratios = LOG_RATIOS.nan_to_num().requires_grad_()
    loss_of(log_ratios)[1].backward()
    assert log_ratios.grad[1, 1] < 0 < log_ratios.grad[1, 0]


def test_a_small_beta_compares_an_item_with_others_only() -> None:
    """An item is no rival of its own: were it, the mean would be over three instead of two."""
    assert loss_of(beta=1e-4)[1].item() == pytest.approx(longhand([0.25, 0.25], [0, 1], 1e-4), rel=1e-12)


def test_metrics_count_pairs_of_different_relevance() -> None:
    """Rewards 0.3, -0.4, 0.4 for relevances 2, 0, 1: right, right, wrong."""
    _, metrics = in_context_ranking_loss(LOG_RATIOS, torch.zeros_like(LOG_RATIOS), INDEX, RELEVANCE, beta=1.0)
    assert metrics["reward_accuracies"].tolist() == pytest.approx([2 / 3, 0.5, 0.0])


def make_batch(**score: Any) -> Batch:
    record = Record.from_text("list", ["a b c", "d"], id="x")
    settings: dict[str, Any] = {"values": (2.0, None, 1.0), "spans": ((0, 2), (2, 3), (3, 9))}
    row = Score(item="r0", name="relevance", level="token", **{**settings, **score})
    record = record.model_copy(update={"scores": (row,)})
    encoded = [[EncodedResponse({}, steps=5, size=5), EncodedResponse({}, steps=2, size=2)]]
    return build_batch([record], encoded, targets_only=False)


def test_items_are_read_from_token_scores() -> None:
    """The second item has no relevance; the third is cut off with its response."""
    batch = make_batch()
    index, relevance = compute_item_index(batch), compute_item_relevance(batch)
    assert index.tolist() == [[1, 1, 0, 3, 3], [0] * 5]
    assert relevance[0, [0, 1, 3, 4]].tolist() == [2.0, 2.0, 1.0, 1.0]
    assert relevance[0, 2].isnan() and relevance[1].isnan().all()
    assert mark_ranked_items(index).tolist() == [True, False]


def test_spans_in_characters_are_refused() -> None:
    with pytest.raises(DataError, match="record 'x': score 'relevance': spans of items count tokens"):
        compute_item_index(make_batch(source="characters"))
