"""From K scores to one reward: thresholds, normalisation, clipping, then a sum, product or minimum, and constraints.

A component goes through, in this order: `threshold` in the reward's own units; `normalise` by the mean and deviation of
all scores seen in training; `clip`; its weight. Under a constraint it has a multiplier instead: what it keeps to the
bound, times the multiplier, is added. NaN stays NaN, enters no statistic, and makes the composite reward NaN.

What is learned while training (moments, multipliers) is the same on all processes and part of the checkpoint. Held-out
rewards use none of it: they are to compare before and after, so they are neither normalised nor constrained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from mmalign.config.components import CompositionConfig, Constraint, Shaping
from mmalign.distribution import SumOverProcesses, count_and_mean
from mmalign.errors import TrainingError

_EPSILON = 1e-8
"""Added to deviations: rewards that never differ become 0."""


@dataclass
class RunningMoments:
    """Count, mean and sum of squared deviations of all values so far.

    Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (1979).
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: Tensor, sum_over_processes: SumOverProcesses) -> None:
        """Adds the values [N] of all processes; NaN entries are left out."""
        count, mean = count_and_mean(values, sum_over_processes)
        deviations = (values.double() - mean)[~values.isnan()]
        squares = float(sum_over_processes(deviations.square().sum()))
        if count:
            total = self.count + count
            gap = mean - self.mean
            self.squares += squares + gap * gap * self.count * count / total
            self.mean += gap * count / total
            self.count = total

    def normalise(self, values: Tensor) -> Tensor:
        """Takes off the mean and divides by the deviation (of the population); unchanged before the first update."""
        if not self.count:
            return values
        deviation = (self.squares / self.count) ** 0.5
        normalised: Tensor = (values.double() - self.mean) / (deviation + _EPSILON)
        return normalised.to(values)


class Composition:
    """Combines K reward dimensions.

    Attributes:
        names: of the K components.
        moments: running moments of the normalised components, by name.
        multipliers: Lagrange multipliers of the constrained components, by name.
    """

    def __init__(self, names: Sequence[str], components: Sequence[Shaping], form: CompositionConfig) -> None:
        self.names = tuple(names)
        self._components = dict(zip(self.names, components, strict=True))
        self._form = form.name
        self._constraints = {name: one.constraint for name, one in self._components.items() if one.constraint}
        self.moments = {name: RunningMoments() for name, one in self._components.items() if one.normalise}
        self.multipliers = {name: one.initial_multiplier for name, one in self._constraints.items()}

    def observe(self, rewards: Tensor, sum_over_processes: SumOverProcesses) -> None:
        """Updates moments and multipliers with the rewards [N, K] of a training round; every process calls it.

        A multiplier goes up by `multiplier_rate` times what the mean lacks to its bound, down likewise, and never below
        0; a round without a score leaves it.

        Source: Tessler et al., Reward Constrained Policy Optimization, arXiv:1805.11074 (its multiplier update).
        Differs: once a round, with the mean over the responses of that round.
        """
        for name, column in zip(self.names, rewards.detach().unbind(dim=1), strict=True):
            scores = _apply_threshold(column, self._components[name].threshold)
            if name in self.moments:
                self.moments[name].update(scores, sum_over_processes)
            if name in self.multipliers:
                count, mean = count_and_mean(scores, sum_over_processes)
                slack = _slack(self._constraints[name], mean) if count else 0.0
                step = self._constraints[name].multiplier_rate * slack
                self.multipliers[name] = max(0.0, self.multipliers[name] - step)

    def compose(self, rewards: Tensor, *, adapted: bool = False) -> Tensor:
        """Combines rewards [N, K].

        Args:
            adapted: normalise and constrain by what `observe` has learned, as training does.

        Returns:
            [N]; NaN where a component of non-zero weight, or a constrained one if `adapted`, is NaN.

        Raises:
            TrainingError: a score below 0 in a product, where two of them would make a reward.
        """
        columns = dict(zip(self.names, rewards.unbind(dim=1), strict=True))
        counted = [name for name in self.names if self._components[name].counted]
        shaped = [self._shape(name, columns[name], adapted) for name in counted]
        total = self._combine(counted, shaped) if counted else rewards.new_zeros(len(rewards))
        for name, multiplier in self.multipliers.items() if adapted else ():
            scores = _apply_threshold(columns[name], self._components[name].threshold)
            total = total + multiplier * _slack(self._constraints[name], scores)
        return total

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as JSON values."""
        moments = {name: asdict(moments) for name, moments in self.moments.items()}
        return {"moments": moments, "multipliers": dict(self.multipliers)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `state` gave, of a run with the same rewards."""
        self.moments = {name: RunningMoments(**moments) for name, moments in state["moments"].items()}
        self.multipliers = dict(state["multipliers"])

    def _shape(self, name: str, scores: Tensor, adapted: bool) -> Tensor:
        component = self._components[name]
        scores = _apply_threshold(scores, component.threshold)
        if component.normalise and not adapted:
            return scores  # the clip is in deviations, which are not known here
        if component.normalise:
            scores = self.moments[name].normalise(scores)
        return scores if component.clip is None else scores.clamp(*component.clip)

    def _combine(self, names: Sequence[str], columns: Sequence[Tensor]) -> Tensor:
        scores = torch.stack(list(columns), dim=1)  # [N, counted]
        weighted = scores * torch.tensor([self._components[name].weight for name in names]).to(scores)
        if self._form == "weighted_sum":
            return weighted.sum(dim=1)
        if self._form == "min":
            return weighted.amin(dim=1)
        for name, column in zip(names, columns, strict=True):
            if (column < 0).any():
                lowest = float(column[~column.isnan()].min())
                expected = "a product needs scores of at least 0; give it `clip: [0, 1]` or a `threshold`"
                raise TrainingError(f"rewards.{name}: got the score {lowest:g}, but {expected}")
        return scores.prod(dim=1)


_Scores = TypeVar("_Scores", float, Tensor)


def _slack(constraint: Constraint, scores: _Scores) -> _Scores:
    """By how much scores keep to the bound; negative where they do not."""
    if constraint.at_least is not None:
        return scores - constraint.at_least
    return cast(float, constraint.at_most) - scores


def _apply_threshold(scores: Tensor, threshold: float | None) -> Tensor:
    if threshold is None:
        return scores
    return torch.where(scores.isnan(), scores, (scores >= threshold).to(scores))
