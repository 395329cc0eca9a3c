"""What objectives read from the fields of records beside the quantities of the contract, when a batch is built.

A number that a record does not hold is NaN; objectives that need it leave the response or pair out (`over`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, permutations, product
from math import nan
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor

from mmalign import DataError, Parameters, QuantitySpec

if TYPE_CHECKING:
    from mmalign import Batch, Record

_VISIT_COUNTS = QuantitySpec(
    name="visit_counts",
    summary="Visits of the tree node of a response; NaN where no node has its rid.",
    compute=f"{__name__}:compute_visit_counts",
    axes="N",
    stage="data",
)
_PREFERENCE_PROBABILITIES = QuantitySpec(
    name="preference_probabilities",
    summary="Share of a record's labels that agree with a pair, ties one half.",
    compute=f"{__name__}:compute_preference_probabilities",
    axes="M",
    stage="data",
    needs=("pairs",),
)
SPECS = (
    QuantitySpec(
        name="margin_rewards",
        summary="Named response-level scores, in the order of the names; NaN where one is missing.",
        compute=f"{__name__}:compute_margin_rewards",
        config=f"{__name__}:MarginRewardsConfig",
        axes="NK",
        stage="data",
    ),
    QuantitySpec(
        name="rating_advantages",
        summary="Rating less the value of the prompt; NaN where either is unknown.",
        compute=f"{__name__}:compute_rating_advantages",
        config=f"{__name__}:AdvantagesConfig",
        axes="N",
        stage="data",
        needs=("ratings",),
    ),
    QuantitySpec(
        name="win_probabilities",
        summary="Response-level score that says how likely a response beats one of the reference; NaN if missing.",
        compute=f"{__name__}:compute_win_probabilities",
        config=f"{__name__}:WinProbabilitiesConfig",
        axes="N",
        stage="data",
    ),
    _VISIT_COUNTS,
    replace(
        _VISIT_COUNTS,
        name="next_values",
        summary="Value V of the tree node of a response; NaN where no node has its rid.",
        compute=f"{__name__}:compute_next_values",
    ),
    _PREFERENCE_PROBABILITIES,
    replace(
        _PREFERENCE_PROBABILITIES,
        name="trace_pairs",
        summary="1 for pairs whose label has the context `trace`, 0 for `empty`.",
        compute=f"{__name__}:compute_trace_pairs",
    ),
    replace(
        _VISIT_COUNTS,
        name="removal_levels",
        summary="How much key content a version of a response lacks, as a level; NaN where unknown.",
        compute=f"{__name__}:compute_removal_levels",
    ),
    replace(
        _VISIT_COUNTS,
        name="label_smoothing",
        summary="Probability that the label of a chosen response is wrong; NaN where unknown.",
        compute=f"{__name__}:compute_label_smoothing",
    ),
)


class MarginRewardsConfig(Parameters):
    """Which scores of the records are the rewards of the other objectives."""

    scores: tuple[str, ...] = Field(min_length=1)
    """Names of response-level scores, e.g. [relevance]; the weights of the objective are in this order."""


class AdvantagesConfig(Parameters):
    """What a rating is compared with."""

    value: str | None = None
    """Name of the response-level score that holds the value of the prompt; default the mean of its other ratings."""


class WinProbabilitiesConfig(Parameters):
    """Where win probabilities are."""

    score: str = "win_probability"
    """Name of the response-level score, in [0, 1]."""


def compute_margin_rewards(batch: Batch, *, scores: Sequence[str]) -> Tensor:
    """Reads the named response-level scores: [N, K]; NaN where one is missing."""
    return torch.stack([_gather(batch, partial(_read, name=name)) for name in scores], dim=1)


def compute_rating_advantages(batch: Batch, *, value: str | None) -> Tensor:
    """Subtracts the value of the prompt from every rating: [N]; NaN where either is unknown.

    The value is a score of the records, or the mean rating of the other responses to the prompt.
    """
    if value is not None:
        return _gather(batch, lambda record: _subtract(record.ratings(), _read(record, value)))
    return _gather(batch, lambda record: _subtract(record.ratings(), _mean_of_others(record.ratings())))


def compute_win_probabilities(batch: Batch, *, score: str) -> Tensor:
    """Reads the probability that a response beats one of the reference: [N]; NaN where it is missing."""
    return _gather(batch, partial(_read, name=score))


def compute_visit_counts(batch: Batch) -> Tensor:
    """Reads how often the search visited the tree node of a response: [N]; NaN where no node has its `rid`."""
    return _gather(batch, partial(_read_nodes, name="visits"))


def compute_next_values(batch: Batch) -> Tensor:
    """Reads the value V of the tree node of a response, the state that it leads to: [N]; NaN where it has none."""
    return _gather(batch, partial(_read_nodes, name="V"))


def compute_preference_probabilities(batch: Batch) -> Tensor:
    """Estimates P(chosen is preferred) of every pair by the share of the record's labels that say so: [M].

    Ties count one half. For two responses that is the maximum-likelihood estimate of Bradley-Terry strengths.
    """
    votes = {id(record): _count_votes(record) for record in batch.records}
    shares = [
        votes[id(record)][one, other] / (votes[id(record)][one, other] + votes[id(record)][other, one])
        for record, one, other, _ in batch.comparisons()
    ]
    return torch.tensor(shares, dtype=torch.float32)


def compute_trace_pairs(batch: Batch) -> Tensor:
    """Reads from the `context` of labels whether the responses of a pair have a reasoning trace: [M], 1 or 0.

    Raises:
        DataError: a label has another context than `trace` and `empty`.
    """
    codes = {"trace": 1.0, "empty": 0.0}
    compared = batch.comparisons()
    for record, _, _, label in compared:
        if label.context not in codes:
            raise DataError(
                f"record {record.id!r}: a label has the context {label.context!r}; expected 'trace' for responses "
                "with a reasoning trace, 'empty' for those without"
            )
    return torch.tensor([codes[str(label.context)] for _, _, _, label in compared], dtype=torch.float32)


def compute_removal_levels(batch: Batch) -> Tensor:
    """Reads how much key content a version of a response lacks, as the transform `spo_degree` writes it: [N]."""
    return _gather(batch, partial(_read_vector, name="removal_level"))


def compute_label_smoothing(batch: Batch) -> Tensor:
    """Reads how likely the label of a chosen response is wrong, as the transform `upo` writes it: [N]."""
    return _gather(batch, partial(_read_vector, name="label_smoothing"))


def _gather(batch: Batch, read: Callable[[Record], Sequence[float]]) -> Tensor:
    """Joins what `read` tells of every record: a number for each of its responses."""
    return torch.tensor([value for record in batch.records for value in read(record)], dtype=torch.float32)


def _read(record: Record, name: str) -> list[float]:
    rows = [row for row in record.scores if row.level == "response" and row.name == name]
    values = {row.item: row.value for row in reversed(rows) if row.value is not None}
    return [values.get(response.rid, nan) for response in record.responses]


def _read_vector(record: Record, name: str) -> list[float]:
    """Reads the first number of a vector score of every response."""
    rows = [row for row in record.scores if row.level == "vector" and row.name == name]
    values = {row.item: row.values[0] for row in reversed(rows) if row.values[0] is not None}
    return [values.get(response.rid, nan) for response in record.responses]


def _read_nodes(record: Record, name: str) -> list[float]:
    values = {node.rid: getattr(node, name) for node in record.tree if getattr(node, name) is not None}
    return [float(values.get(response.rid, nan)) for response in record.responses]


def _subtract(ratings: Sequence[float], values: Sequence[float]) -> list[float]:
    return [rating - value for rating, value in zip(ratings, values, strict=True)]


def _mean_of_others(ratings: Sequence[float]) -> list[float]:
    known = {place: rating for place, rating in enumerate(ratings) if rating == rating}
    others = [[rating for place, rating in known.items() if place != own] for own in range(len(ratings))]
    return [fmean(group) if group else nan for group in others]


def _count_votes(record: Record) -> defaultdict[tuple[str, str], float]:
    """Counts how often each item is preferred to each other one."""
    votes: defaultdict[tuple[str, str], float] = defaultdict(float)
    for label in record.labels:
        for group in label.order:
            for pair in permutations(group, 2):
                votes[pair] += 0.5
        for better, worse in combinations(label.order, 2):
            for pair in product(better, worse):
                votes[pair] += 1
    return votes
