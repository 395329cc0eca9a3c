"""The loss of a micro-batch: its weighted share of the mean loss over the global batch, summed over objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmalign.losses.metrics import MetricSums
from mmalign.losses.objectives import Objective
from mmalign.losses.reductions import weighted_sum


def weighted_loss(
    objectives: Sequence[Objective], values: Mapping[str, Tensor], totals: Sequence[Tensor], sums: MetricSums
) -> Tensor:
    """Sums the objectives' weighted element losses of a micro-batch and adds their metrics to `sums`.

    Args:
        values: quantities of the micro-batch.
        totals: for every objective its `totals` of the whole global batch.

    Returns:
        a scalar; over all micro-batches of all processes these add up to the loss of the global batch.
    """
    terms = []
    for objective, total in zip(objectives, totals, strict=True):
        losses, metrics = objective.evaluate(values)
        weights = objective.element_weights(values, total)
        term = weighted_sum(losses, weights)
        sums.add(objective, values, total, metrics)
        if objective.prefix:
            sums.add_loss(term, objective.prefix)
        terms.append(objective.weight * term)
    loss = torch.stack(terms).sum()
    sums.add_loss(loss)
    return loss
