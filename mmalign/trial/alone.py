"""Tries a part by itself, without a configuration: what `mmalign.testing` offers to authors, and our own tests use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmalign.config.validation import validate_parameters
from mmalign.contract.binding import check_keywords, needs_of, owner_of, read_binding, read_keywords
from mmalign.contract.forward_plan import Divergence, Output
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import Plan, find_teachers, plan_quantities
from mmalign.contract.specs import AdvantageSpec, CollectorSpec, ModalitySpec, ObjectiveSpec, QuantitySpec
from mmalign.import_strings import load_object
from mmalign.losses.objectives import Objective, bind_objective
from mmalign.planning.plan import BoundAdvantage, list_needs, list_providers
from mmalign.planning.providers import plugin_provider
from mmalign.plugins.registry import Registry
from mmalign.trial.objectives import TrialReport, try_methods
from mmalign.trial.values import TrialSizes

EVERYTHING = ModalitySpec(
    name="anything",
    summary="Gives every output.",
    target="nowhere:Nothing",
    provides=(*(one.value for one in Output), *(one.value for one in Divergence)),
)
_COLLECTOR = CollectorSpec(name="anyhow", summary="Keeps stored responses.", target="nowhere:Nothing", stored=True)


def try_alone(
    registry: Registry,
    spec: ObjectiveSpec | AdvantageSpec | QuantitySpec,
    parameters: Mapping[str, Any] | None = None,
    quantities: Mapping[str, Mapping[str, Any]] | None = None,
    rewards: int = 1,
) -> TrialReport:
    """Calls an objective, an advantage or a quantity on made-up tensors, with everything that it needs.

    Args:
        registry: what there is.
        parameters: of the part, as a configuration gives them.
        quantities: parameters of quantities that it needs, by their names.
        rewards: number of reward dimensions K.

    Raises:
        MmalignError: it cannot be bound or planned, or its parameters are wrong.
    """
    objectives = [bind_alone(spec, parameters or {})] if isinstance(spec, ObjectiveSpec) else []
    advantage = _bind_advantage(spec, parameters or {}) if isinstance(spec, AdvantageSpec) else None
    own = {spec.name: parameters or {}} if isinstance(spec, QuantitySpec) else {}
    plan = _with_parameters(registry, plan_alone(registry, spec), {**(quantities or {}), **own})
    sizes = TrialSizes({"rewards": (5, rewards)})
    return try_methods(plan, objectives, advantage, sizes)


def bind_alone(spec: ObjectiveSpec, parameters: Mapping[str, Any]) -> Objective:
    """Binds an objective to its parameters and its inputs, weight 1."""
    binding = read_binding(spec)
    bound = bind_objective(spec, binding.inputs, load_object(spec.loss), _validate(spec, parameters), 1.0)
    check_keywords(owner_of(spec), binding.signature, bound.parameters)
    return bound


def plan_alone(registry: Registry, spec: ObjectiveSpec | AdvantageSpec | QuantitySpec) -> Plan:
    """Plans what a part needs where everything is supplied: stored and sampled responses, all outputs, all teachers."""
    needs: tuple[str, ...]
    if isinstance(spec, ObjectiveSpec):
        needs = list_needs(spec)
    else:
        needs = (spec.name,) if isinstance(spec, QuantitySpec) else ("advantages",)
    inner = needs_of(spec)
    teachers = tuple(one for one in find_teachers((*needs, *inner)) if one not in _known(registry))
    providers = list_providers(registry, EVERYTHING, collector=_COLLECTOR, rewards=["reward"], teachers=teachers)
    estimate = inner if isinstance(spec, AdvantageSpec) else ("composite_rewards",)
    providers.append(Provider("advantages", "N", "frozen", estimate))
    if isinstance(spec, QuantitySpec):
        providers.append(plugin_provider(spec, "as it was given"))
    return plan_quantities({owner_of(spec): needs}, {provider.name: provider for provider in providers})


def _known(registry: Registry) -> set[str]:
    """First words of quantities that plugins compute, which name no teacher."""
    return {entry.spec.name.rpartition("_")[0] for entry in registry.quantities()}


def _bind_advantage(spec: AdvantageSpec, parameters: Mapping[str, Any]) -> BoundAdvantage:
    binding, values = read_binding(spec), _validate(spec, parameters)
    check_keywords(owner_of(spec), binding.signature, values)
    return BoundAdvantage(spec.name, load_object(spec.function), binding.inputs, values)


def _with_parameters(registry: Registry, plan: Plan, given: Mapping[str, Mapping[str, Any]]) -> Plan:
    specs = {entry.spec.name: entry.spec for entry in registry.quantities()}
    providers = []
    for provider in plan.providers:
        if provider.name in specs:
            spec = specs[provider.name]
            values = _validate(spec, given.get(spec.name, {}))
            check_keywords(owner_of(spec), read_keywords(spec), values)
            provider = replace(provider, parameters=values)
        providers.append(provider)
    return Plan(tuple(providers))


def _validate(spec: ObjectiveSpec | AdvantageSpec | QuantitySpec, parameters: Mapping[str, Any]) -> dict[str, Any]:
    model = validate_parameters(spec, parameters, spec.name)
    return {name: getattr(model, name) for name in type(model).model_fields}
