"""What is looked up by name in a configuration, and the plan of quantities that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from mmalign.config.components import Component, key_path
from mmalign.config.run_config import RunConfig
from mmalign.config.validation import validate_parameters
from mmalign.contract.binding import check_keywords, needs_of, owner_of, read_keywords
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import Plan, plan_quantities
from mmalign.contract.specs import CollectorSpec, ModalitySpec, ObjectiveSpec, Spec, TargetSpec
from mmalign.errors import ConfigError
from mmalign.foreign import foreign_code
from mmalign.import_strings import load_object
from mmalign.losses.objectives import Objective
from mmalign.planning.providers import data_providers, modality_providers, plugin_provider, rollout_providers
from mmalign.plugins.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class BoundAdvantage:
    """An advantage estimator with its parameters."""

    name: str
    function: Any
    inputs: Mapping[str, str]
    parameters: Mapping[str, Any]
    min_group: int = 1

    def estimate(self, values: Mapping[str, Tensor]) -> Tensor:
        """Computes advantages [N] or [N, T] from quantities by name."""
        with foreign_code(f"advantage {self.name!r}", self.function):
            result: Tensor = self.function(
                **{parameter: values[name] for parameter, name in self.inputs.items()}, **self.parameters
            )
        return result


class Builder:
    """Looks parts up, validates their parameters and remembers what they implement."""

    def __init__(self, registry: Registry, source: str) -> None:
        self.registry = registry
        self.source = source
        self.papers: dict[str, str] = {}

    @property
    def prefix(self) -> str:
        """The file the configuration came from, as errors begin with it; empty if it came from Python."""
        return f"{self.source}: " if self.source else ""

    def find(self, kind: str, component: Component, where: str) -> Spec:
        """Finds the spec that a component names."""
        spec: Spec = self.registry.find(kind, component.name, f"{self.prefix}{where}.name").spec
        return spec

    def plugin_of(self, kind: str, component: Component) -> str:
        """Names the plugin that offers the part that a component names."""
        return self.registry.find(kind, component.name, kind).plugin.name

    def bind(self, kind: str, component: Component, where: str, **more: Any) -> tuple[Spec, dict[str, Any]]:
        """Finds the spec, and validates the parameters, and `more` of them, by its config model."""
        spec = self.find(kind, component, where)
        if spec.paper:
            self.papers[spec.name] = spec.paper
        parameters = validate_parameters(spec, component.parameters | more, where, self.source)
        return spec, {name: getattr(parameters, name) for name in type(parameters).model_fields}

    def build(self, kind: str, component: Component, where: str) -> Any:
        """Builds the part that a component names."""
        spec, parameters = self.bind(kind, component, where)
        return load_object(cast(TargetSpec, spec).target)(**parameters)


def plan_run(
    builder: Builder,
    objectives: Sequence[Objective],
    modality: ModalitySpec,
    advantage: BoundAdvantage | None,
    config: RunConfig,
) -> Plan:
    """Plans the quantities of a run and gives those of plugins their parameters.

    Raises:
        ConfigError: a quantity that is configured and not needed.
        PlanError: a quantity that nothing supplies.
    """
    collector = builder.find("collector", config.collector, "collector") if config.collector else None
    providers = list_providers(
        builder.registry,
        modality,
        collector=cast("CollectorSpec | None", collector),
        rewards=[reward.name for reward in config.rewards],
        teachers=tuple(config.teachers),
    )
    if advantage is not None:
        origin = f"advantage {advantage.name}"
        needed = tuple(advantage.inputs.values())
        providers.append(Provider("advantages", "N", "frozen", needed, origin=origin))
    needs = {f"objective {objective.spec.name!r}": list_needs(objective.spec) for objective in objectives}
    plan = plan_quantities(needs, {provider.name: provider for provider in providers})
    return _bind_quantities(builder, config, plan)


def list_providers(
    registry: Registry,
    modality: ModalitySpec,
    *,
    collector: CollectorSpec | None,
    rewards: Sequence[str],
    teachers: Sequence[str],
) -> list[Provider]:
    """Lists who can supply quantities, advantages apart.

    Args:
        collector: None where responses are stored ones.
        rewards: names of the configured rewards; they count where there is a collector.
        teachers: names of the further models.
    """
    providers = [*data_providers(collector), *modality_providers(modality, teachers)]
    entries = registry.entries("quantity")
    # Companions are found in stored records; what is sampled has none.
    stored = collector is None or collector.stored
    usable = [entry for entry in entries if stored or entry.spec.stage != "companion"]
    providers += [plugin_provider(entry.spec, f"plugin {entry.plugin.name}") for entry in usable]
    return providers + (rollout_providers(rewards, stored=stored) if collector is not None else [])


def list_needs(spec: ObjectiveSpec) -> tuple[str, ...]:
    """Lists the quantities of an objective: for its loss, and to know which elements count."""
    elements = ("pairs",) if spec.per == "pair" else ()
    return (*elements, *needs_of(spec), *((spec.over,) if spec.over else ()))


def _bind_quantities(builder: Builder, config: RunConfig, plan: Plan) -> Plan:
    """Gives the planned quantities of plugins their parameters."""
    bound: dict[str, Mapping[str, Any]] = {}
    for index, component in enumerate(config.quantities):
        where = key_path("quantities", index, config.quantities)
        spec, parameters = builder.bind("quantity", component, where)
        if spec.name not in plan:
            prefix = f"{builder.source}: " if builder.source else ""
            raise ConfigError(f"{prefix}{where}.name: nothing in this run needs the quantity {spec.name!r}; drop it")
        bound[spec.name] = parameters
    for entry in builder.registry.entries("quantity"):
        spec = entry.spec
        if spec.name in plan and spec.name not in bound:
            defaults = validate_parameters(spec, {}, f"quantities[{spec.name}]", builder.source)
            bound[spec.name] = {name: getattr(defaults, name) for name in type(defaults).model_fields}
        if spec.name in plan:
            signature = read_keywords(spec)
            check_keywords(owner_of(spec, entry.plugin.name), signature, bound[spec.name])
    return Plan(tuple(replace(one, parameters=bound.get(one.name, {})) for one in plan.providers))
