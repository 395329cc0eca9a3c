"""All mutants: of every registered loss, estimator and pure quantity, and of what their specs announce."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

from mmalign.config.validation import load_config_model
from mmalign.contract.binding import read_binding
from mmalign.contract.quantities import Plan
from mmalign.contract.specs import AdvantageSpec, ObjectiveSpec, QuantitySpec
from mmalign.plugins.registry import Registry
from mmalign.trial.alone import plan_alone
from mutation.mutants import Mutant, load_function

Spec = ObjectiveSpec | AdvantageSpec | QuantitySpec

_BOOLEAN = {"step_mask", "sampled", "stored", "targets", "labelled", "chosen_step_mask", "rejected_step_mask"}
_INDEX = {"prompt_index", "chosen_prompt_index", "step_index", "item_index"}
_OTHER_PER = {"pair": "response", "prompt": "pair", "response": "step", "step": "response"}
_OTHER_AXES = {"N": "M", "NT": "N", "M": "N", "": "N", "NK": "N", "NSD": "NT"}


def iter_swaps(registry: Registry) -> Iterator[tuple[ObjectiveSpec, tuple[str, str]]]:
    """Yields every objective with every two parameters whose quantities have equal axes."""
    for entry in registry.entries("objective"):
        inputs, plan = read_binding(entry.spec).inputs, plan_alone(registry, entry.spec)
        axes = axes_of(plan)
        for one, other in combinations(inputs, 2):
            if axes[inputs[one]] == axes[inputs[other]]:
                yield entry.spec, (one, other)


def axes_of(plan: Plan) -> dict[str, str]:
    return {provider.name: provider.axes for provider in plan.providers}


def swap_names(spec: ObjectiveSpec, pair: tuple[str, str]) -> ObjectiveSpec:
    """Announces an objective with the quantities of two of its parameters exchanged."""
    inputs = read_binding(spec).inputs
    one, other = pair
    return replace(spec, names={**spec.names, one: inputs[other], other: inputs[one]})


def iter_spec_mutants(registry: Registry) -> Iterator[tuple[Spec, str]]:
    """Yields wrong announcements: another `per`, other axes."""
    for entry in registry.entries("objective"):
        other = _OTHER_PER[entry.spec.per]
        yield replace(entry.spec, per=other), f"per={other!r} for {entry.spec.per!r}"
    for entry in registry.entries("quantity"):
        if entry.spec.axes in _OTHER_AXES:
            other = _OTHER_AXES[entry.spec.axes]
            yield replace(entry.spec, axes=other), f"axes={other!r} for {entry.spec.axes!r}"


def iter_mutants(registry: Registry) -> Iterator[tuple[Spec, Mutant]]:
    """Yields mutants of the functions of losses, estimators and pure quantities, each function once."""
    seen: set[str] = set()
    for kind in ("objective", "advantage", "quantity"):
        for entry in registry.entries(kind):
            path = _path_of(entry.spec)
            if path and path not in seen and load_function(path):
                seen.add(path)
                for mutant in _mutate(registry, entry.spec, path):
                    yield entry.spec, mutant


def _path_of(spec: Spec) -> str:
    if isinstance(spec, ObjectiveSpec):
        return spec.loss
    if isinstance(spec, AdvantageSpec):
        return spec.function
    return spec.compute if spec.stage in ("frozen", "policy", "step") else ""


def _mutate(registry: Registry, spec: Spec, path: str) -> Iterator[Mutant]:
    binding, plan = read_binding(spec), plan_alone(registry, spec)
    axes, stages = axes_of(plan), {provider.name: provider.stage for provider in plan.providers}
    for parameter, quantity in binding.inputs.items():
        yield from _mutate_tensor(path, parameter, quantity, axes[quantity], stages[quantity])
    for one, other in combinations(binding.inputs, 2):
        if axes[binding.inputs[one]] == axes[binding.inputs[other]]:
            yield Mutant(path, f"{one} and {other} exchanged", f"{one}, {other} = {other}, {one}")
    fields: dict[str, Any] = load_config_model(spec).model_fields
    for name in binding.signature.keywords:
        if name in fields and fields[name].annotation in (float, int):
            yield Mutant(path, f"{name} with the other sign", f"{name} = -{name}")
            yield Mutant(path, f"twice {name}", f"{name} = 2 * {name} + 0.25")


def _mutate_tensor(path: str, parameter: str, quantity: str, axes: str, stage: str) -> Iterator[Mutant]:
    if quantity in _BOOLEAN:
        yield Mutant(path, f"{parameter} marks everything", f"{parameter} = {parameter} | True")
        return
    if quantity == "pairs":
        yield Mutant(path, "chosen and rejected rows exchanged", f"{parameter} = {parameter}.flip(1)")
        return
    if quantity in _INDEX:
        yield Mutant(path, f"{parameter} is 0 everywhere", f"{parameter} = 0 * {parameter}")
        return
    yield Mutant(path, f"{parameter} with the other sign", f"{parameter} = -{parameter}")
    if stage == "policy":
        yield Mutant(path, f"{parameter} detached", f"{parameter} = {parameter}.detach()")
    if axes.startswith(("NT", "MT")):
        yield Mutant(path, f"{parameter} shifted by a step", f"{parameter} = {parameter}.roll(1, 1)")
