"""Metrics as means over the global batch: summed over micro-batches, then over processes, in one reduction."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmalign.distribution import SumOverProcesses
from mmalign.errors import PluginError
from mmalign.losses.objectives import Objective, element_mask
from mmalign.losses.sampler_gap import SamplerGap


class MetricSums:
    """Adds up per-element metrics, each already divided by the element count of the global batch.

    Attributes:
        gap: that of the sampler, which is no metric of an objective.
    """

    def __init__(self) -> None:
        self.gap = SamplerGap()
        self._sums: dict[str, Tensor] = {}

    def add(
        self, objective: Objective, values: Mapping[str, Tensor], totals: Tensor, metrics: Mapping[str, Tensor]
    ) -> None:
        """Adds the metrics of one micro-batch.

        Args:
            values: quantities of the micro-batch.
            totals: elements and responses that the objective covers in the global batch, [2].
            metrics: per-element tensors: of the loss's shape, or [N] where the loss is per step.

        Raises:
            PluginError: a metric has another shape.
        """
        mask = element_mask(objective.spec, values)
        for name, metric in metrics.items():
            if metric.shape not in (mask.shape, mask.shape[:1]):
                raise PluginError(
                    f"objective {objective.spec.name!r}: its metric {name!r} has shape {tuple(metric.shape)}; expected "
                    f"one number per element, {tuple(mask.shape)}"
                )
            covered, total = (mask, totals[0]) if metric.shape == mask.shape else (mask.any(dim=-1), totals[1])
            kept = torch.where(covered, metric.detach().double(), 0.0)
            self._accumulate(f"{objective.prefix}{name}", kept.sum() / total.clamp(min=1))

    def add_loss(self, loss: Tensor, prefix: str = "") -> None:
        """Adds a micro-batch's share of a mean loss."""
        self._accumulate(f"{prefix}loss", loss.detach().double())

    def _accumulate(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def compute(self, sum_over_processes: SumOverProcesses) -> dict[str, float]:
        """Adds up over processes; every process must have added the same names."""
        return _reduce(self._sums, sum_over_processes) if self._sums else {}


def compute_means(values: Mapping[str, Tensor], sum_over_processes: SumOverProcesses) -> dict[str, float]:
    """Averages each [N] tensor over the responses of all processes, leaving NaN out; NaN if nothing is left."""
    sums: dict[str, Tensor] = {}
    for name, value in values.items():
        known = ~value.isnan()
        sums[f"{name}|sum"] = torch.where(known, value.double(), 0.0).sum()
        sums[f"{name}|count"] = known.sum().double()
    reduced = _reduce(sums, sum_over_processes)
    counts = {name: reduced[f"{name}|count"] for name in values}
    return {name: reduced[f"{name}|sum"] / count if count else float("nan") for name, count in counts.items()}


def _reduce(sums: Mapping[str, Tensor], sum_over_processes: SumOverProcesses) -> dict[str, float]:
    names = sorted(sums)
    return dict(zip(names, sum_over_processes(torch.stack([sums[name] for name in names])).tolist(), strict=True))
