"""An objective bound to its parameters, and the normalisation over the global batch.

A loss function returns the loss of every element; here elements get their weights, so that the sum over all
micro-batches of all processes is the mean over the global batch, however it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmalign.compute.batch import Batch
from mmalign.errors import PluginError
from mmalign.foreign import foreign_code
from mmalign.losses.reductions import aggregation_weights
from mmalign.names import distinct_names
from mmalign.specs import ObjectiveSpec

LossFunction = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]
ENGINE_PARAMETERS = ("aggregation", "horizon")
"""Parameters of an objective that say how step losses are reduced; the loss itself does not get them."""


@dataclass(frozen=True)
class Objective:
    """A loss with its parameters.

    Attributes:
        spec: what the plugin announced.
        loss: the pure loss function.
        parameters: its keyword arguments.
        weight: factor in the sum of objectives.
        aggregation: how step losses are reduced.
        horizon: the constant of the aggregation `constant`, in steps.
        prefix: of its metrics' names; empty where it is the only objective.
        per_element: those of its needs that hold something for each element, e.g. [M, ...] for a loss on pairs.
    """

    spec: ObjectiveSpec
    loss: LossFunction
    parameters: Mapping[str, Any]
    weight: float = 1.0
    aggregation: str = "step_mean"
    horizon: float | None = None
    prefix: str = ""
    per_element: frozenset[str] = frozenset()

    def evaluate(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Computes the loss of every element, float32, and its metrics.

        What is known of an element that does not count is given to the loss as zeros, so that no NaN in it reaches a
        gradient.

        Raises:
            PluginError: the loss has another shape than its declaration says.
        """
        mask = element_mask(self.spec, values)
        counted = _covered(self.spec, values) if self.spec.per == "step" else mask
        needs = [
            _blank(values[name], counted) if name in self.per_element else values[name] for name in self.spec.needs
        ]
        with foreign_code(f"objective {self.spec.name!r}", self.loss):
            losses, metrics = self.loss(*needs, **self.parameters)
        expected = mask.shape
        if losses.shape != expected:
            raise PluginError(
                f"objective {self.spec.name!r}: its loss has shape {tuple(losses.shape)}, but one element per "
                f"{self.spec.per} is {tuple(expected)}"
            )
        return losses, metrics

    def totals(self, batch: Batch) -> Tensor:
        """Counts the elements and responses of a batch that this objective covers: float64 [2]."""
        mask = element_mask(self.spec, batch.quantities)
        responses = mask.any(dim=1) if mask.dim() == 2 else mask
        return torch.stack([mask.sum(), responses.sum()]).double()

    def element_weights(self, values: Mapping[str, Tensor], totals: Tensor) -> Tensor:
        """Computes the weight of every element so that weighted losses sum to the mean over the global batch.

        Args:
            values: quantities of a micro-batch.
            totals: `totals` summed over the whole global batch.
        """
        mask = element_mask(self.spec, values)
        totals = totals.clamp(min=1).float()
        if self.spec.per != "step":
            return mask.float() / totals[0]
        return aggregation_weights(
            self.aggregation,
            mask,
            total_steps=totals[0],
            total_responses=totals[1],
            horizon=self.horizon,
        )


def bind_objective(spec: ObjectiveSpec, loss: LossFunction, parameters: Mapping[str, Any], weight: float) -> Objective:
    """Separates the loss's own parameters from those that the engine acts on."""
    own = {name: value for name, value in parameters.items() if name not in ENGINE_PARAMETERS}
    aggregation = parameters.get("aggregation", spec.aggregation)
    return Objective(spec, loss, own, weight, aggregation, parameters.get("horizon"))


def label_metrics(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """Gives the objectives of a sum distinct metric prefixes: `dpo/`, `sft/`, a second dpo `dpo_2/`."""
    if len(objectives) == 1:
        return tuple(objectives)
    names = distinct_names([objective.spec.name for objective in objectives])
    return tuple(replace(one, prefix=f"{name}/") for one, name in zip(objectives, names, strict=True))


def element_mask(spec: ObjectiveSpec, values: Mapping[str, Tensor]) -> Tensor:
    """Marks the elements that count: [M], [P], [N] or [N, T] bool."""
    if spec.per == "pair" and spec.over.endswith("_row"):
        return values[spec.over] >= 0
    covered = _covered(spec, values)
    if spec.per == "pair":
        return covered[values["pairs"]].all(dim=1)
    if spec.per == "prompt":
        return torch.isin(torch.unique(values["prompt_index"]), values["prompt_index"][covered])
    return covered[:, None] & values["step_mask"] if spec.per == "step" else covered


def _covered(spec: ObjectiveSpec, values: Mapping[str, Tensor]) -> Tensor:
    """Marks the responses [N] that the objective is over."""
    return _known(values[spec.over]) if spec.over else torch.ones_like(values["lengths"], dtype=torch.bool)


def _known(values: Tensor) -> Tensor:
    """Marks the responses [N] that a bool quantity marks, or of which one of numbers [N] or [N, K] has no NaN."""
    return values if values.dtype == torch.bool else ~values.isnan().reshape(len(values), -1).any(dim=1)


def bind_axes(objective: Objective, axes: Mapping[str, str]) -> Objective:
    """Notes which needs of an objective over some pairs or responses (or their steps) hold something for each of them.

    Args:
        axes: of every planned quantity.
    """
    letter = {"pair": "M", "response": "N", "step": "N"}.get(objective.spec.per)
    if letter is None or not objective.spec.over:
        return objective
    names = frozenset(name for name in objective.spec.needs if axes[name].startswith(letter))
    return replace(objective, per_element=names)


def _blank(value: Tensor, mask: Tensor) -> Tensor:
    """Replaces numbers about elements that do not count by 0."""
    if not value.is_floating_point():
        return value
    return torch.where(mask.reshape(-1, *[1] * (value.dim() - 1)), value, 0)
