"""In-context ranking preference optimisation: the items of one response, ranked among themselves.

The response is a list, such as ten titles in the order of recommendation. A reader's relevance of every item is known.
Each item has a log-ratio of its own, and is compared with all others of its response; not to be confused with iterative
reasoning preference optimisation, which shares its abbreviation.

Shapes: N responses, T steps, I items of the longest list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from mmalign import DataError, ObjectiveSpec, Parameters, QuantitySpec
from mmalign_objectives.support.lists import differences
from mmalign_objectives.support.response_rows import iter_responses
from mmalign_objectives.support.shapes import check_shapes

if TYPE_CHECKING:
    from mmalign import Batch

_ITEM_INDEX = QuantitySpec(
    name="item_index",
    summary="Place in its response's list of the item that a step belongs to, from 1; 0 for none.",
    compute=f"{__name__}:compute_item_index",
    axes="NT",
    stage="data",
    needs=("step_mask", "prompt_index"),
)
SPECS = (
    ObjectiveSpec(
        name="in_context_ranking",
        summary=(
            "Ranks the items of one response by their relevance (the IRPO that is about lists inside a response)."
        ),
        loss=f"{__name__}:in_context_ranking_loss",
        config=f"{__name__}:InContextRankingConfig",
        per="response",
        over="ranked_items",
        equation=(
            "-mean_i (2^g_i - 1) / log2(1 + i) logsigmoid(-log mean_{j != i} exp(beta (d_j - d_i))), d: mean log-ratio"
        ),
        paper="In-context Ranking Preference Optimization (arXiv:2504.15477)",
    ),
    _ITEM_INDEX,
    replace(
        _ITEM_INDEX,
        name="item_relevance",
        summary="Relevance of the item that a step belongs to; NaN for none.",
        compute=f"{__name__}:compute_item_relevance",
    ),
    QuantitySpec(
        name="ranked_items",
        summary="True for responses with at least two items.",
        compute=f"{__name__}:mark_ranked_items",
        axes="N",
        stage="data",
    ),
)


MAX_RELEVANCE = 60.0
"""Relevances are cut here before they become a power of two, which float32 could not hold."""


class InContextRankingConfig(Parameters):
    """In-context ranking preference optimisation."""

    beta: float = Field(default=1.0, gt=0)
    """Inverse temperature of the implicit reward of an item, a mean over its steps."""


def in_context_ranking_loss(
    policy_logps: Tensor, reference_logps: Tensor, item_index: Tensor, item_relevance: Tensor, *, beta: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the ranking loss of the items of every response.

    Args:
        policy_logps: [N, T], nats.
        reference_logps: [N, T], nats, no gradient.
        item_index: [N, T], the place in the list of the item that a step belongs to, 1 for the first; 0 for none.
        item_relevance: [N, T], the relevance of that item, at least 0; NaN for none.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        losses [N], 0 where a response has fewer than two items, and the detached metric `reward_accuracies` [N], the
        share of pairs of different relevance that the rewards order alike.

    Source: arXiv:2504.15477, with the mean over rivals of the official code.
    Differs: losses of responses are averaged, not summed; an item is never its own rival, whatever beta is.
    """
    check_shapes(2, policy=policy_logps, reference=reference_logps, index=item_index, relevance=item_relevance)
    items = int(item_index.max().clamp(min=1))
    in_item = one_hot(item_index.long(), items + 1)[:, :, 1:].bool()  # [N, T, I]
    mask = in_item.any(dim=1)
    steps = in_item.sum(dim=1).clamp(min=1)
    log_ratios = torch.where(item_index > 0, policy_logps - reference_logps, 0)
    means = torch.where(in_item, log_ratios[:, :, None], 0).sum(dim=1) / steps  # [N, I]
    relevance = torch.where(in_item, item_relevance[:, :, None], 0).sum(dim=1) / steps
    return rank_items(means, relevance, mask, beta=beta)


def rank_items(log_ratios: Tensor, relevance: Tensor, mask: Tensor, *, beta: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the mean over items of -w logsigmoid(-z), for every list.

    z is the logarithm of the mean over rivals of exp(beta (their log-ratio - the item's own)); w is the item's share of
    the discounted cumulative gain, (2^relevance - 1) / log2(1 + place).

    Args:
        log_ratios: [N, I], of items in the order in which they stand in the list.
        relevance: [N, I], at least 0.
        mask: [N, I] bool.
        beta: inverse temperature of the implicit reward, positive.

    Returns:
        as `in_context_ranking_loss`.
    """
    check_shapes(2, log_ratios=log_ratios, relevance=relevance, mask=mask)
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device).to(log_ratios)
    weights = (torch.exp2(relevance.clamp(max=MAX_RELEVANCE)) - 1) / torch.log2(1 + places)
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    rivals = mask[:, :, None] & mask[:, None, :] & ~itself  # [N, I, I]: rival j of item i
    lowest = torch.finfo(log_ratios.dtype).min / 4
    advantage = (-beta * differences(log_ratios)).masked_fill(~rivals, lowest).logsumexp(dim=2)
    count = rivals.sum(dim=2)
    losses = -weights * logsigmoid(count.clamp(min=1).to(log_ratios).log() - advantage)
    losses = torch.where(count > 0, losses, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return losses, {"reward_accuracies": _accuracy(log_ratios.detach(), relevance, rivals)}


def _accuracy(log_ratios: Tensor, relevance: Tensor, rivals: Tensor) -> Tensor:
    better = rivals & (differences(relevance) > 0)
    right = torch.where(better, (differences(log_ratios).sign() + 1) / 2, 0)
    return right.sum(dim=(1, 2)) / better.sum(dim=(1, 2)).clamp(min=1)


def compute_item_index(batch: Batch) -> Tensor:
    """Finds the item that every step belongs to, from 1; 0 for none: [N, T] long.

    Items are the spans of a response's first score of level `token`, in their order. Spans count steps; what lies
    beyond the end of a response that was cut off is left out.
    """
    index = torch.zeros_like(batch.quantities["step_mask"], dtype=torch.long)
    for row, place, _, (start, end) in _iter_items(batch):
        index[row, start:end] = place
    return index.masked_fill(~batch.quantities["step_mask"], 0)


def compute_item_relevance(batch: Batch) -> Tensor:
    """Finds the relevance of the item that every step belongs to: [N, T]; NaN for none."""
    mask = batch.quantities["step_mask"]
    relevance = torch.full(mask.shape, torch.nan, device=mask.device)
    for row, _, value, (start, end) in _iter_items(batch):
        relevance[row, start:end] = value
    return relevance


def mark_ranked_items(item_index: Tensor) -> Tensor:
    """Marks the responses with at least two items: [N] bool."""
    return (item_index > 1).any(dim=1)


def _iter_items(batch: Batch) -> Iterator[tuple[int, int, float, tuple[int, int]]]:
    """Yields row, place, relevance and span of every item of known relevance."""
    for row, (record, response) in enumerate(iter_responses(batch)):
        score = next((one for one in record.scores if one.level == "token" and one.item == response.rid), None)
        if score is None:
            continue
        if score.source == "characters":
            raise DataError(f"record {record.id!r}: score {score.name!r}: spans of items count tokens, not characters")
        for place, (value, span) in enumerate(zip(score.values, score.spans, strict=True), start=1):
            if value is not None:
                yield row, place, value, span
