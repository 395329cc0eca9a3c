"""Do the parts of a run belong together? Each check raises one error that says which key is wrong and what would do.

`prefix` is the file that the configuration came from, with a colon; empty if it came from Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmalign.config.run_config import RunConfig
from mmalign.contract.decoding import Decoding
from mmalign.contract.modality import Modality
from mmalign.contract.quantities import Plan
from mmalign.contract.specs import ModalitySpec
from mmalign.errors import ConfigError, PlanError, suggest
from mmalign.losses.objectives import Objective
from mmalign.plugins.registry import Registry

if TYPE_CHECKING:
    from mmalign.planning.assembly import Assembly


def check_log_prob_kind(objectives: Sequence[Objective], modality: ModalitySpec) -> None:
    """An objective that needs densities cannot train on a surrogate."""
    for objective in objectives:
        if modality.log_prob_kind not in objective.spec.log_prob_kinds:
            raise PlanError(
                f"objective {objective.spec.name!r} needs {' or '.join(objective.spec.log_prob_kinds)} log-probs, but "
                f"modality {modality.name!r} gives {modality.log_prob_kind} ones; choose another objective"
            )


def check_online(config: RunConfig, prefix: str) -> None:
    """Advantages are computed from rewards, and of samples only."""
    if config.collector is not None and not config.rewards and config.advantage is not None:
        raise ConfigError(f"{prefix}rewards: missing; advantage {config.advantage.name!r} is computed from rewards")
    if config.collector is None and config.advantage is not None:
        raise ConfigError(
            f"{prefix}advantage: {config.advantage.name!r} works in online runs only; add `collector: {{name: group}}`"
        )


def check_group(assembly: Assembly, prefix: str) -> None:
    """Advantages relative to the other responses to a prompt need others."""
    size = assembly.collector.independent_group if assembly.collector else None
    advantage, component = assembly.advantage, assembly.config.collector
    if advantage is not None and component is not None and size is not None and size < advantage.min_group:
        raise ConfigError(
            f"{prefix}collector.group_size: {component.name!r} samples {size} response to a prompt, but advantage "
            f"{advantage.name!r} compares the responses to a prompt with each other, so it would always be 0; expected "
            f"at least {advantage.min_group}"
        )


def check_prompts(config: RunConfig, plan: Plan, prefix: str) -> None:
    """Quantities that compare prompts with each other need several in a global batch."""
    for name, least in plan.comparing.items():
        if config.train.batch_size < least:
            raise ConfigError(
                f"{prefix}train.batch_size: got {config.train.batch_size}, but {name!r} compares the prompts of a "
                f"global batch with each other, so with one prompt it would never change; expected at least {least}"
            )


def check_consulted(config: RunConfig, modality: Modality, prefix: str) -> None:
    """A network that the modality asks for must be there."""
    for name in sorted(modality.required_networks - {"policy", "reference"} - config.teachers.keys()):
        raise ConfigError(
            f"{prefix}teachers.{name}: missing; modality {config.modality.name!r} asks for a network of that name"
            f"{suggest(name, ('policy', 'reference', *config.teachers))}"
        )


def keeps_stored(config: RunConfig, registry: Registry) -> bool:
    """Returns whether the collector keeps the responses of the data beside those it samples."""
    collector = config.collector
    return collector is not None and registry.find("collector", collector.name, "collector.name").spec.stored


def check_temperature(config: RunConfig, registry: Registry, decoding: Decoding, prefix: str) -> None:
    """Log-probs are those of the sampled distribution; at another temperature pairs would train another model."""
    if keeps_stored(config, registry) and decoding.temperature != 1:
        raise ConfigError(
            f"{prefix}decoding.temperature: got {decoding.temperature:g}, but stored responses are scored at the "
            "temperature that the policy is sampled at; expected 1 where a run trains on both"
        )


def check_sampled_network(assembly: Assembly, prefix: str) -> None:
    """Samples of another network than the policy are made in this process, and at once."""
    if assembly.samples_policy:
        return
    if not assembly.engine.follows_policy:
        raise ConfigError(f"{prefix}engine.name: {assembly.config.engine.name!r} cannot sample the reference; drop it")
    if assembly.config.train.overlap_parts > 1:
        raise ConfigError(f"{prefix}train.overlap_parts: samples of the reference do not overlap; drop it")


def check_reference(config: RunConfig, plan: Plan, modality: Modality, prefix: str) -> None:
    """A reference that moves is of use only where something is compared with it."""
    strategy = config.reference.strategy
    asked = plan.needs_reference or "reference" in modality.required_networks or bool(config.evaluation.evaluators)
    if strategy != "auto" and not asked:
        raise ConfigError(f"{prefix}reference.strategy: {strategy!r}, but no objective compares with a reference")


def check_exports(config: RunConfig, modality: Modality, prefix: str) -> None:
    """A merged export needs a modality that can merge."""
    if config.checkpoint.merged and type(modality).save_merged is Modality.save_merged:
        raise ConfigError(f"{prefix}checkpoint.merged: modality {config.modality.name!r} has no merged export; drop it")
