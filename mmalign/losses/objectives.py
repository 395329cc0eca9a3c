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

from mmalign.contract.batch import Batch
from mmalign.contract.binding import ENGINE_PARAMETERS
from mmalign.contract.specs import ObjectiveSpec
from mmalign.errors import PluginError
from mmalign.foreign import foreign_code, name_origin
from mmalign.losses.reductions import aggregation_weights
from mmalign.names import distinct_names

LossFunction = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]


@dataclass(frozen=True)
class Objective:
    """A loss with its parameters.

    Attributes:
        spec: what the plugin announced.
        loss: the pure loss function.
        inputs: which quantity each of its parameters gets.
        parameters: its keyword arguments.
        weight: factor in the sum of objectives.
        aggregation: how step losses are reduced.
        horizon: the constant of the aggregation `constant`, in steps.
        prefix: of its metrics' names; empty where it is the only objective.
        per_element: those of its needs that hold something for each element, e.g. [M, ...] for a loss on pairs.
    """

    spec: ObjectiveSpec
    loss: LossFunction
    inputs: Mapping[str, str]
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
            PluginError: the loss raises, or returns something else than its declaration says.
        """
        mask = element_mask(self.spec, values)
        counted = _covered(self.spec, values) if self.spec.per == "step" else mask
        arguments = {
            parameter: _blank(values[name], counted) if name in self.per_element else values[name]
            for parameter, name in self.inputs.items()
        }
        with foreign_code(f"objective {self.spec.name!r}", self.loss):
            result = self.loss(**arguments, **self.parameters)
        self._check(result, mask)
        losses, metrics = result
        return losses, metrics

    def _check(self, result: Any, mask: Tensor) -> None:
        """Checks what a loss returns: a tensor of one loss an element, and a dictionary of detached tensors of them."""
        who = f"objective {self.spec.name!r} of {name_origin(self.loss)}"
        if not isinstance(result, tuple) or len(result) != 2:
            raise PluginError(f"{who}: its loss returned {_describe(result)}; expected (losses, metrics)")
        losses, metrics = result
        if not isinstance(losses, Tensor) or not losses.is_floating_point():
            raise PluginError(f"{who}: its losses are {_describe(losses)}; expected a tensor of floats")
        if losses.shape != mask.shape:
            raise PluginError(
                f"{who}: its loss has shape {tuple(losses.shape)}, but one element per {self.spec.per} is "
                f"{tuple(mask.shape)}"
            )
        if not isinstance(metrics, Mapping):
            raise PluginError(f"{who}: its metrics are {_describe(metrics)}; expected a dictionary of tensors")
        for name, value in metrics.items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise PluginError(f"{who}: its metric {name!r} is {_describe(value)}; expected a tensor")
            if value.requires_grad:
                raise PluginError(f"{who}: its metric {name!r} carries a gradient; return {name}.detach()")

    def totals(self, batch: Batch) -> Tensor:
        """Counts the elements and responses of a batch that this objective covers: float64 [2]."""
        return self.count(batch.quantities)

    def count(self, values: Mapping[str, Tensor]) -> Tensor:
        """Counts the elements and responses that this objective covers among the quantities of a batch: float64 [2]."""
        mask = element_mask(self.spec, values)
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


def bind_objective(
    spec: ObjectiveSpec, inputs: Mapping[str, str], loss: LossFunction, parameters: Mapping[str, Any], weight: float
) -> Objective:
    """Separates the loss's own parameters from those that the engine acts on.

    Args:
        inputs: which quantity each parameter of the loss gets; see `mmalign.contract.binding`.
    """
    own = {name: value for name, value in parameters.items() if name not in ENGINE_PARAMETERS}
    aggregation = parameters.get("aggregation", spec.aggregation)
    return Objective(spec, loss, inputs, own, weight, aggregation, parameters.get("horizon"))


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

    Raises:
        PluginError: what the objective is over is not about what its loss has one element for.
    """
    _check_over(objective.spec, axes)
    letter = {"pair": "M", "response": "N", "step": "N"}.get(objective.spec.per)
    if letter is None or not objective.spec.over:
        return objective
    names = frozenset(name for name in objective.inputs.values() if axes[name].startswith(letter))
    return replace(objective, per_element=names)


def _check_over(spec: ObjectiveSpec, axes: Mapping[str, str]) -> None:
    found = axes.get(spec.over, "N")
    if not (found.startswith("N") or (found == "MI" and spec.per == "pair")):
        expected = "a quantity of responses [N]" + (", or a companion" if spec.per == "pair" else "")
        raise PluginError(
            f"objective {spec.name!r}: it is over {spec.over!r}, which is [{', '.join(found)}], and has one loss a "
            f"{spec.per}; expected {expected}"
        )


def _describe(value: Any) -> str:
    return f"a tensor {tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__


def _blank(value: Tensor, mask: Tensor) -> Tensor:
    """Replaces numbers about elements that do not count by 0."""
    if not value.is_floating_point():
        return value
    return torch.where(mask.reshape(-1, *[1] * (value.dim() - 1)), value, 0)
