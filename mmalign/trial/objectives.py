"""Tries losses on made-up quantities: arity, keywords, shapes, metrics, finite values, and where gradients go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmalign.contract.quantities import Plan
from mmalign.errors import MmalignError, PluginError
from mmalign.foreign import name_origin
from mmalign.losses.metrics import MetricSums
from mmalign.losses.objectives import Objective, bind_axes
from mmalign.losses.weighting import weighted_loss
from mmalign.planning.plan import BoundAdvantage
from mmalign.trial.quantities import TrialValues, compute_trial_values
from mmalign.trial.values import TrialSizes

_SEEDS = range(4)
"""A hinge or a clipped ratio may be flat for some numbers, but not for all of these."""


@dataclass
class TrialReport:
    """What a trial found out.

    Attributes:
        problems: one line for each mistake; empty where there is none.
        constants: by objective, the parameters of its loss that are computed from what is trained and get no gradient.
    """

    problems: list[str] = field(default_factory=list)
    constants: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def raise_problems(self) -> None:
        """Raises all of them as one PluginError, if there is one."""
        if self.problems:
            raise PluginError("\n".join(self.problems))


def try_methods(
    plan: Plan,
    objectives: Sequence[Objective],
    advantage: BoundAdvantage | None = None,
    sizes: TrialSizes | None = None,
) -> TrialReport:
    """Calls every planned function, module and loss on made-up tensors of the planned axes.

    Args:
        plan: the quantities in order.
        objectives: losses with their parameters.
        advantage: computes `advantages`, if they are planned.
        sizes: lengths of open axes.
    """
    report = TrialReport()
    axes = {provider.name: provider.axes for provider in plan.providers}
    try:
        bound = [bind_axes(one, axes) for one in objectives]
    except PluginError as error:
        return TrialReport([str(error)])
    reached: dict[int, set[str]] = {place: set() for place in range(len(bound))}
    for seed in _SEEDS:
        trial = compute_trial_values(plan, advantage, sizes, seed)
        problems = list(trial.problems)
        for place, objective in enumerate(bound):
            try:
                reached[place] |= _try_objective(objective, trial)
            except PluginError as error:
                problems.append(str(error))
            except MmalignError:
                # The loss refuses these numbers on purpose.
                reached[place] |= set(objective.inputs)
        if problems:
            report.problems = list(dict.fromkeys(problems))
            return report
        if all(reached[place] >= set(_trained(one, trial)) for place, one in enumerate(bound)):
            break
    for place, objective in enumerate(bound):
        _judge_gradients(objective, trial, reached[place], report)
    return report


def _try_objective(objective: Objective, trial: TrialValues) -> set[str]:
    """Evaluates one loss; returns the parameters that get a gradient other than 0."""
    if not trial.failed.isdisjoint(objective.inputs.values()):
        return set(objective.inputs)
    totals = objective.count(trial.values)
    if not totals[0]:
        # None of the made-up responses is one that the objective is over.
        return set(objective.inputs)
    loss = weighted_loss([objective], trial.values, [totals], MetricSums())
    who = f"objective {objective.spec.name!r} of {name_origin(objective.loss)}"
    if not torch.isfinite(loss):
        raise PluginError(
            f"{who}: its loss is {loss.item():g} where all numbers of steps that count are finite; padded steps are "
            "not: does it leave out what `step_mask` does not mark?"
        )
    if not loss.requires_grad:
        raise PluginError(
            f"{who}: its loss has no gradient: it is made of detached tensors, or of none that is trained"
        )
    inputs = {
        parameter: trial.values[name]
        for parameter, name in objective.inputs.items()
        if trial.values[name].requires_grad
    }
    gradients = torch.autograd.grad(
        loss, [*inputs.values(), *trial.leaves.values()], allow_unused=True, retain_graph=True
    )
    named = dict(zip(inputs, gradients, strict=False))
    counted = trial.values["step_mask"]
    for parameter, gradient in named.items():
        if gradient is not None and not _is_finite(gradient, counted):
            raise PluginError(f"{who}: the gradient of its parameter {parameter!r} is not finite")
    return {parameter for parameter, gradient in named.items() if gradient is not None and _moves(gradient, counted)}


def _trained(objective: Objective, trial: TrialValues) -> list[str]:
    """Lists the parameters of a loss that are computed from what is trained."""
    return [parameter for parameter, name in objective.inputs.items() if trial.values[name].requires_grad]


def _is_finite(gradient: Tensor, step_mask: Tensor) -> bool:
    """True if no gradient of what counts is NaN or infinite."""
    rows = gradient[step_mask] if gradient.shape[:2] == step_mask.shape else gradient
    return bool(torch.isfinite(rows).all())


def _moves(gradient: Tensor, step_mask: Tensor) -> bool:
    rows = gradient[step_mask] if gradient.shape[:2] == step_mask.shape else gradient
    return bool((rows != 0).any())


def _judge_gradients(objective: Objective, trial: TrialValues, reached: set[str], report: TrialReport) -> None:
    trained = _trained(objective, trial)
    if trained and not reached:
        report.problems.append(
            f"objective {objective.spec.name!r} of {name_origin(objective.loss)}: no gradient reaches "
            f"{', '.join(trained)}, whatever the numbers: the run could not learn"
        )
    report.constants[objective.spec.name] = tuple(one for one in trained if one not in reached)
