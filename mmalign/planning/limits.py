"""What an objective can be used with, read off its announcement: for `mmalign explain` and the index of methods.

Whether its needs are met is asked of the planner, as for a run; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmalign.contract.binding import needs_of
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import DERIVED, Plan, find_teachers, plan_quantities
from mmalign.contract.specs import CollectorSpec, ConformanceSpec, ModalitySpec, ObjectiveSpec, Spec
from mmalign.errors import PlanError
from mmalign.planning.plan import list_needs, list_providers
from mmalign.plugins.registry import Entry, Registry

STORED, SAMPLED, BOTH = "stored responses", "sampled responses", "stored and sampled responses in one run"


@dataclass(frozen=True)
class Limits:
    """What an objective can be used with.

    Attributes:
        modalities: names of the registered ones that give the log-probs and whatever else it needs.
        data: where its quantities can come from: stored responses, sampled responses or either; both in one run only
            where neither will do.
        coupled: quantities of the whole global batch that it needs at every step; empty if it needs none.
    """

    modalities: tuple[str, ...]
    data: tuple[str, ...]
    coupled: tuple[str, ...]


def find_limits(spec: ObjectiveSpec, registry: Registry) -> Limits:
    """Asks the planner for every registered modality, with stored responses and with each registered collector."""
    modalities: list[str] = []
    data: set[str] = set()
    coupled: dict[str, None] = {}
    for modality in (entry.spec for entry in registry.entries("modality")):
        if modality.log_prob_kind not in spec.log_prob_kinds:
            continue
        plans = _plan_all(spec, modality, registry) or _plan_all(
            spec, modality, registry, find_teachers(needs_of(spec))
        )
        if plans:
            modalities.append(modality.name)
            data |= plans.keys()
        for plan in plans.values():
            coupled |= dict.fromkeys(one.name for one in plan.computed("step") if one.origin != DERIVED)
    told = tuple(name for name in (STORED, SAMPLED) if name in data) or tuple(data)
    return Limits(tuple(modalities), told, tuple(coupled))


def golden_methods(entry: Entry[Spec], registry: Registry) -> tuple[str, ...]:
    """Names the methods of golden vectors that the plugin of a part announces for it."""
    announced: list[ConformanceSpec] = [
        one.spec for one in registry.entries("conformance") if one.plugin.name == entry.plugin.name
    ]
    names = {entry.spec.name, *entry.spec.aliases}
    return tuple(dict.fromkeys(one.method for one in announced if names & set(one.parts or (one.method,))))


def _plan_all(
    spec: ObjectiveSpec, modality: ModalitySpec, registry: Registry, teachers: Sequence[str] = ()
) -> dict[str, Plan]:
    """Plans with stored, with sampled and with both responses; what cannot be planned is left out."""
    collectors: Sequence[CollectorSpec] = [entry.spec for entry in registry.entries("collector")]
    plans = {}
    for name, collector in [(STORED, None), *((BOTH if one.stored else SAMPLED, one) for one in collectors)]:
        providers = list_providers(registry, modality, collector=collector, rewards=["reward"], teachers=teachers)
        if collector is not None:
            providers.append(Provider("advantages", "N", "frozen", ("composite_rewards",)))
        try:
            plans[name] = plan_quantities({"": list_needs(spec)}, {provider.name: provider for provider in providers})
        except PlanError:
            continue
    return plans
