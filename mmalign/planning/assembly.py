"""From a configuration to bound parts and a plan: everything that can be decided before weights are loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mmalign.config.components import Component, RewardComponent, key_path
from mmalign.config.run_config import RunConfig
from mmalign.contract.binding import read_binding
from mmalign.contract.components import Collector, Engine, Evaluator, Reward, Transform
from mmalign.contract.decoding import Decoding
from mmalign.contract.modality import Modality
from mmalign.contract.quantities import Plan
from mmalign.contract.specs import AdvantageSpec, ModalitySpec, ObjectiveSpec, Spec, TargetSpec
from mmalign.errors import ConfigError, PluginError, suggest
from mmalign.import_strings import load_object
from mmalign.losses.objectives import Objective, bind_axes, bind_objective, label_metrics
from mmalign.names import distinct_names
from mmalign.planning.checks import (
    check_consulted,
    check_exports,
    check_group,
    check_log_prob_kind,
    check_online,
    check_prompts,
    check_reference,
    check_sampled_network,
    check_temperature,
    keeps_stored,
)
from mmalign.planning.components import check_components
from mmalign.planning.overlap import check_overlap
from mmalign.planning.plan import BoundAdvantage, Builder, plan_run
from mmalign.plugins.registry import Registry
from mmalign.rewards.global_state import preserved_state
from mmalign.rewards.scorer import BoundReward, RewardScorer

_LABEL = re.compile(r"[^\W\d_][\w.-]*")


@dataclass(frozen=True)
class Assembly:
    """The parts of a run, bound to their parameters, and the plan that joins them.

    Attributes:
        papers: what the parts of this run implement, by part name, for the report.
        teachers: the modality once more for every teacher, with the model that is the teacher.
    """

    config: RunConfig
    registry: Registry
    modality: Modality
    modality_spec: ModalitySpec
    objectives: tuple[Objective, ...]
    scorer: RewardScorer | None
    advantage: BoundAdvantage | None
    collector: Collector | None
    decoding: Decoding
    engine: Engine
    evaluators: Mapping[str, Evaluator]
    plan: Plan
    papers: Mapping[str, str]
    teachers: Mapping[str, Modality] = field(default_factory=dict)

    @property
    def online(self) -> bool:
        """True if the policy is sampled for training."""
        return self.collector is not None

    @property
    def keeps_stored(self) -> bool:
        """True if the policy is sampled beside the responses of the data, which are trained on, too."""
        return keeps_stored(self.config, self.registry)

    @property
    def samples_policy(self) -> bool:
        """True if it is the policy that is sampled for training, if anything is."""
        return self.collector is None or self.collector.network == "policy"

    @property
    def varying(self) -> tuple[str, ...]:
        """Names of the quantities that are computed from samples or from models, so that they may mark no response."""
        return tuple(one.name for one in self.plan.providers if one.compute and one.stage not in ("data", "companion"))

    @property
    def targets_only(self) -> bool:
        """True if no objective looks at responses beside the supervised targets."""
        return all(objective.spec.over == "targets" for objective in self.objectives)

    @property
    def whole_prompts(self) -> bool:
        """True if an objective compares all responses to a prompt."""
        return any(objective.spec.per == "prompt" for objective in self.objectives)


def assemble(config: RunConfig, registry: Registry, source: str = "") -> Assembly:
    """Builds the parts that `config` names and plans their quantities.

    Args:
        source: the file the configuration came from, for errors.

    Raises:
        ConfigError: an unknown name or parameter, or parts that do not belong together.
        PlanError: a quantity that nothing supplies.
    """
    builder = Builder(registry, source)
    check_components(builder, config)
    objectives = _bind_objectives(builder, config)
    modality_spec = cast(ModalitySpec, builder.find("modality", config.modality, "modality"))
    check_log_prob_kind(objectives, modality_spec)
    advantage = _bind_advantage(builder, config)
    check_online(config, builder.prefix)
    plan = plan_run(builder, objectives, modality_spec, advantage, config)
    check_prompts(config, plan, builder.prefix)
    axes = {provider.name: provider.axes for provider in plan.providers}
    objectives = tuple(bind_axes(objective, axes) for objective in objectives)
    modality = builder.build("modality", config.modality, "modality")
    check_consulted(config, modality, builder.prefix)
    check_reference(config, plan, modality, builder.prefix)
    check_exports(config, modality, builder.prefix)
    modality.media_limits = config.data.media_limits
    decoding = builder.build("decoding", config.decoding, "decoding")
    check_temperature(config, registry, decoding, builder.prefix)
    assembly = Assembly(
        config=config,
        registry=registry,
        modality=modality,
        modality_spec=modality_spec,
        objectives=objectives,
        scorer=_build_scorer(builder, config),
        advantage=advantage,
        collector=builder.build("collector", config.collector, "collector") if config.collector else None,
        decoding=decoding,
        engine=_build_engine(builder, config, modality, decoding),
        evaluators=_build_evaluators(builder, config.evaluation.evaluators),
        plan=plan,
        papers=builder.papers,
        teachers=_build_teachers(builder, config, modality, plan),
    )
    check_sampled_network(assembly, builder.prefix)
    check_group(assembly, builder.prefix)
    if config.train.overlap_parts > 1:
        check_overlap(assembly, f"{builder.prefix}train.overlap_parts")
    return assembly


def build_transforms(registry: Registry, components: Sequence[Any], where: str, source: str = "") -> list[Transform]:
    """Builds the transforms of one data section."""
    builder = Builder(registry, source)
    return [
        builder.build("transform", Component.model_validate(component), f"{where}.transforms[{index}]")
        for index, component in enumerate(components)
    ]


def load_registry_for(config: Mapping[str, Any], disabled: Sequence[str] = ()) -> Registry:
    """Loads plugins, those in the configuration's `plugins` files included."""
    from mmalign.plugins.registry import load_registry

    files = [Path(file) for file in config.get("plugins") or ()]
    return load_registry(disabled=disabled, files=files)


def _bind_objectives(builder: Builder, config: RunConfig) -> tuple[Objective, ...]:
    bound = []
    for index, component in enumerate(config.objective):
        where = key_path("objective", index, config.objective)
        spec, parameters = builder.bind("objective", component, where)
        spec = cast(ObjectiveSpec, spec)
        plugin = builder.plugin_of("objective", component)
        binding = read_binding(spec, plugin)
        objective = bind_objective(spec, binding.inputs, load_object(spec.loss), parameters, component.weight)
        if objective.aggregation == "constant" and objective.horizon is None:
            raise ConfigError(f"{where}.horizon: missing; aggregation 'constant' divides by it, in steps")
        bound.append(objective)
    return label_metrics(bound)


def _bind_advantage(builder: Builder, config: RunConfig) -> BoundAdvantage | None:
    if config.advantage is None:
        return None
    spec, parameters = builder.bind("advantage", config.advantage, "advantage")
    spec = cast(AdvantageSpec, spec)
    plugin = builder.plugin_of("advantage", config.advantage)
    binding = read_binding(spec, plugin)
    return BoundAdvantage(spec.name, load_object(spec.function), binding.inputs, parameters, spec.min_group)


def _build_scorer(builder: Builder, config: RunConfig) -> RewardScorer | None:
    rewards = [
        _build_reward(builder, component, key_path("rewards", index, config.rewards))
        for index, component in enumerate(config.rewards)
    ]
    _check_labels(builder, rewards)
    return RewardScorer(rewards, config.composition) if rewards else None


def _build_reward(builder: Builder, component: RewardComponent, where: str) -> BoundReward:
    spec = builder.find("reward", component, where)
    more: dict[str, Any] = {}
    if "label" in load_object(spec.config).model_fields:  # the reward's own parameter, not its name
        more = {} if component.label is None else {"label": component.label}
        component = component.model_copy(update={"label": None})
    spec, parameters = builder.bind("reward", component, where, **more)
    reserved = sorted(parameters.keys() & RewardComponent.model_fields.keys() - {"label"})
    if reserved:
        raise PluginError(f"reward {spec.name!r} has a parameter {reserved[0]!r}, a key that all rewards have")
    with preserved_state():  # the file of a function is run here
        reward: Reward = load_object(cast(TargetSpec, spec).target)(**parameters)
    key = builder.prefix + where
    _check_dimensions(spec, reward.dimensions, component, key)
    if component.cache and not reward.deterministic:
        raise ConfigError(
            f"{key}.cache: reward {spec.name!r} is not declared deterministic, so its scores may not be kept"
        )
    return BoundReward(component, reward)


def _check_labels(builder: Builder, rewards: Sequence[BoundReward]) -> None:
    taken: dict[str, str] = {}
    for index, bound in enumerate(rewards):
        label = bound.component.label
        where = key_path("rewards", index, [one.component for one in rewards])
        if label is not None and not _LABEL.fullmatch(str(label)):
            expected = "expected letters, digits, _, - and ., beginning with a letter"
            raise ConfigError(f"{builder.prefix}{where}.label: got {label!r}; {expected}")
        if label in (*taken, "unscored"):
            other = taken.get(str(label), "the metric reward/unscored")
            raise ConfigError(f"{builder.prefix}{where}.label: {label!r} is the name of {other}, too; choose another")
        taken[str(label or bound.component.name)] = where


def _check_dimensions(spec: Spec, dimensions: Sequence[str], component: RewardComponent, where: str) -> None:
    if len(set(dimensions)) < len(dimensions) or not all(dimensions):
        raise ConfigError(f"{where}: the dimensions need names of their own, got {', '.join(map(repr, dimensions))}")
    for name in component.dimensions:
        if not dimensions:
            raise ConfigError(f"{where}.dimensions: reward {spec.name!r} gives one number here, without dimensions")
        if name not in dimensions:
            raise ConfigError(f"{where}.dimensions: unknown dimension {name!r}{suggest(name, dimensions)}")


def _build_engine(builder: Builder, config: RunConfig, modality: Modality, decoding: Decoding) -> Engine:
    engine: Engine = builder.build("engine", config.engine, "engine")
    engine.check(modality, decoding)
    return engine


def _build_teachers(builder: Builder, config: RunConfig, modality: Modality, plan: Plan) -> dict[str, Modality]:
    """Builds the modality anew for every teacher: as the policy's, without an adapter, with the keys of the teacher."""
    teachers: dict[str, Modality] = {}
    policy = {k: v for k, v in config.modality.parameters.items() if k not in modality.adapter_parameters}
    for name, own in config.teachers.items():
        where = f"teachers.{name}"
        key = builder.prefix + where
        if not plan.needs_anchor(name) and name not in modality.required_networks:
            raise ConfigError(f"{key}: nothing in this run needs a quantity of {name!r}; drop it")
        if trained := sorted(own.keys() & modality.adapter_parameters):
            raise ConfigError(f"{key}.{trained[0]}: a teacher is frozen and trains no adapter; drop it")
        if "name" in own:
            raise ConfigError(f"{key}.name: a teacher is of the policy's modality; drop it")
        component = Component.model_validate({**policy, **own, "name": config.modality.name})
        try:
            teachers[name] = builder.build("modality", component, where)
        except ConfigError as error:
            told = str(error)
            raise ConfigError(told if where in told else f"{key}: {told}") from error
    return teachers


def _build_evaluators(builder: Builder, components: Sequence[Component]) -> dict[str, Evaluator]:
    names = distinct_names([component.name for component in components])
    return {
        name: builder.build("evaluator", component, key_path("evaluation.evaluators", index, components))
        for index, (name, component) in enumerate(zip(names, components, strict=True))
    }
