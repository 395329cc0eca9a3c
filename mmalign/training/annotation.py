"""Scores of stored responses that a trained run computes: one of its quantities, written into the records."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from math import isnan
from typing import Any, Protocol

import torch
from torch import Tensor

from mmalign.compute.backend import Backend
from mmalign.contract.provider import Provider
from mmalign.data.records import Record, Score
from mmalign.errors import ConfigError, DataError, suggest
from mmalign.networks.policy import Policy, evaluation_mode
from mmalign.planning.assembly import Assembly

logger = logging.getLogger(__name__)


class ScoredRun(Protocol):
    """What is needed of a run to compute with it."""

    @property
    def assembly(self) -> Assembly:
        """Its parts and plan."""

    @property
    def backend(self) -> Backend:
        """What computes quantities."""

    @property
    def policy(self) -> Policy:
        """The trained module."""


def score_records(
    run: ScoredRun, records: Sequence[Record], quantity: str, *, name: str, passes: int = 1, chunk: int = 4
) -> Iterator[Record]:
    """Adds a quantity as a score of every response, or of the chosen response of every pair.

    Args:
        quantity: a planned quantity of responses [N] or of pairs [M]; NaN gives no score.
        name: of the score; one of this name that the record has already is replaced.
        passes: 1 computes without dropout and writes scores of level `response`; more compute as often with dropout
            and write scores of level `vector`.
        chunk: records in a forward pass.

    Raises:
        ConfigError: the run does not compute that quantity, or has no stored responses.
        DataError: a quantity of pairs, and a response is chosen in several.
    """
    provider = _find(run, quantity)
    varies = passes == 1
    for start in range(0, len(records), chunk):
        part = records[start : start + chunk]
        columns = torch.stack(_compute(run, part, quantity, passes))  # [passes, N or M]
        varies = varies or not torch.equal(columns[0], columns[-1])
        rows = iter(columns.T.tolist())
        for record in part:
            found = {item: next(rows) for item in _items(record, provider)}
            yield _add(record, name, found)
    if not varies:
        logger.warning("all %d passes gave the same %s: the model has no dropout", passes, quantity)


def _find(run: ScoredRun, quantity: str) -> Provider:
    if run.assembly.online:
        raise ConfigError(f"{quantity}: a run that samples its responses computes nothing of stored ones")
    providers = {one.name: one for one in run.assembly.plan.providers if one.axes in ("N", "M")}
    if quantity not in providers:
        raise ConfigError(
            f"--quantity: the run computes no {quantity!r} of responses or pairs{suggest(quantity, providers)}"
        )
    return providers[quantity]


@torch.no_grad()
def _compute(run: ScoredRun, records: Sequence[Record], quantity: str, passes: int) -> list[Tensor]:
    backend = run.backend
    with evaluation_mode(run.policy):
        batch = backend.prepare_step(backend.prepare(backend.encode(records, targets_only=False)), training=False)
        if passes == 1:
            return [backend.policy_values(batch)[quantity].float().cpu()]
    was_training = run.policy.training
    run.policy.train()
    try:
        return [backend.policy_values(batch)[quantity].float().cpu() for _ in range(passes)]
    finally:
        run.policy.train(was_training)


def _items(record: Record, provider: Provider) -> list[str]:
    """Names the responses that the rows of a record are about, in order."""
    if provider.axes == "N":
        return [response.rid for response in record.responses]
    chosen = [record.responses[row].rid for row, _, _ in record.pair_indices()]
    if len(set(chosen)) < len(chosen):
        raise DataError(
            f"record {record.id!r}: a response is chosen in several pairs and cannot hold {provider.name!r} of each"
        )
    return chosen


def _add(record: Record, name: str, values: dict[str, list[float]]) -> Record:
    kept = [score for score in record.scores if score.name != name]
    rows: list[Score] = []
    for item, own in values.items():
        if any(map(isnan, own)):
            continue
        level: dict[str, Any] = {"level": "response", "value": own[0]}
        if len(own) > 1:
            level = {"level": "vector", "values": tuple(own), "keys": tuple(f"pass-{n}" for n in range(len(own)))}
        rows.append(Score(item=item, name=name, **level))
    return record.model_copy(update={"scores": (*kept, *rows)})
