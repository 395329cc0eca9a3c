"""Quantities and the planner: who supplies what an objective needs, decided before anything heavy loads.

A provider names a quantity, its axes, what it is computed from and at which stage:

- `data`: from the records and their encoding, when a batch is built;
- `companion`: from the records, which further response a pair is scored with;
- `frozen`: once a round, without gradient (reference log-probs, rewards, advantages);
- `step`: once an optimiser step over the whole global batch, without gradient (batch-coupled losses);
- `policy`: in every micro-batch, with gradient.

Names with a suffix or a `chosen_`/`rejected_` part are derived from plainer ones; see `ObjectiveSpec.needs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING

from mmalign.contract.forward_plan import FROZEN_OUTPUTS, POLICY_OUTPUTS, Divergence, ForwardPlan
from mmalign.contract.provider import Provider, Stage
from mmalign.errors import PlanError, suggest

if TYPE_CHECKING:
    from torch import Tensor


DERIVED = "derived"
"""Origin of the quantities that follow from others by their name alone."""

_SOURCES = ("policy", "reference", "behaviour", "teacher")
"""Sources of log-probs whose derived names are read as such even where they are missing, for the error."""
_STEPWISE = "|".join(("logps", *(kind.value for kind in Divergence)))
_DIVERGENCE = re.compile(rf"(\w+)_({'|'.join(kind.value for kind in Divergence)})")
_PAIRED = re.compile(r"(chosen|rejected)_(\w+)")
_FROZEN_MODEL = re.compile(
    r"(?:chosen_|rejected_)?([a-z]\w*?)(?:_chosen|_rejected)?(?:_sequence|_mean)?"
    rf"_({'|'.join(output.value for output in FROZEN_OUTPUTS)}|{_STEPWISE})"
)
_TAKE_ROW = "mmalign.contract.quantities:take_row"


@dataclass(frozen=True)
class Plan:
    """The providers of a run in the order in which they are computed."""

    providers: tuple[Provider, ...]

    def names(self, stage: Stage | None = None) -> tuple[str, ...]:
        """Names of the planned quantities, of one stage or all."""
        return tuple(provider.name for provider in self.providers if stage in (None, provider.stage))

    def computed(self, stage: Stage) -> tuple[Provider, ...]:
        """Providers of a stage that have a function to call, in order."""
        return tuple(p for p in self.providers if p.stage == stage and p.compute)

    @property
    def trained(self) -> tuple[Provider, ...]:
        """Providers with a module of their own, which is trained with the policy, in order."""
        return tuple(provider for provider in self.providers if provider.module)

    @cached_property
    def forward(self) -> ForwardPlan:
        """What the policy's forward pass must give."""
        given = [one.name for one in self.providers if one.stage == "policy" and not (one.compute or one.module)]
        outputs = [POLICY_OUTPUTS[name] for name in given if name in POLICY_OUTPUTS]
        divergences: dict[str, list[Divergence]] = {}
        for name in given:
            if match := _DIVERGENCE.fullmatch(name):
                divergences.setdefault(match[1], []).append(Divergence(match[2]))
        return ForwardPlan.of(*outputs, **divergences)

    @property
    def comparing(self) -> dict[str, int]:
        """Quantities that compare prompts of a global batch with each other, and how many prompts they need."""
        return {one.name: one.min_prompts for one in self.providers if one.min_prompts > 1}

    @property
    def needs_reference(self) -> bool:
        """True if a reference model has to be run."""
        return self.needs_anchor("reference")

    def needs_anchor(self, name: str) -> bool:
        """True if the anchor of that name, the reference or a teacher, has to be run."""
        return any(f"{name}_{output.value}" in self for output in FROZEN_OUTPUTS)

    def __contains__(self, name: str) -> bool:
        return name in self.names()


def plan_quantities(needs: Mapping[str, Sequence[str]], available: Mapping[str, Provider]) -> Plan:
    """Orders the providers that supply everything that is needed.

    Args:
        needs: the needed names by who needs them (`"objective 'dpo'"`), for the error.
        available: the providers by name.

    Raises:
        PlanError: a quantity has no provider; the message names who needs it and what would supply it.
    """
    ordered: dict[str, Provider] = {}
    for consumer, names in needs.items():
        for name in names:
            _resolve(name, consumer, available, ordered, ())
    return Plan(tuple(ordered.values()))


def _resolve(
    name: str, consumer: str, available: Mapping[str, Provider], ordered: dict[str, Provider], path: tuple[str, ...]
) -> Provider:
    if name in ordered:
        return ordered[name]
    if name in path:
        raise PlanError(f"{consumer}: quantity {name!r} needs itself: {' -> '.join([*path, name])}")
    provider = available.get(name) or _derive_companion(name, available) or _derive(name, _sources(available))
    if provider is None:
        raise PlanError(_explain_missing(name, consumer, available, path))
    provider = provider.bind()
    needed = [_resolve(need, consumer, available, ordered, (*path, name)) for need in provider.needs]
    if provider.origin == DERIVED and not needed[0].axes.startswith("N"):
        raise PlanError(
            f"{consumer} needs {name!r}, but {needed[0].name!r} is [{', '.join(needed[0].axes)}], not a quantity of "
            "responses [N]"
        )
    _check_trained(provider, needed)
    ordered[name] = _with_stage(provider, needed)
    return ordered[name]


def _check_trained(provider: Provider, needed: Sequence[Provider]) -> None:
    """A trained module is called inside the policy's pass, so it cannot read what is computed from that afterwards."""
    late = [need.name for need in needed if need.stage == "policy" and need.compute]
    if provider.module and late:
        raise PlanError(
            f"quantity {provider.name!r} ({provider.origin}) is trained and needs {late[0]!r}, which is computed after "
            "the policy's pass; it can need outputs of that pass and what is known before it"
        )


def _with_stage(provider: Provider, needed: Sequence[Provider]) -> Provider:
    """A derived quantity is as late as the latest of those it is computed from; a declared stage is kept or refused."""
    order: tuple[Stage, ...] = ("data", "companion", "frozen", "step", "policy")
    latest = max([provider, *needed], key=lambda one: order.index(one.stage))
    if provider.stage != latest.stage and provider.origin != DERIVED:
        raise PlanError(
            f"quantity {provider.name!r} ({provider.origin}) is computed at stage {provider.stage!r}, but needs "
            f"{latest.name!r} of the later stage {latest.stage!r}"
        )
    # What is picked for pairs has the further axes of what it is picked from.
    further = needed[0].axes[1:] if provider.origin == DERIVED and provider.axes == "M" else ""
    return replace(provider, stage=latest.stage, axes=provider.axes + further)


def _sources(available: Mapping[str, Provider]) -> str:
    """Joins the names of all that log-probs can come from, as an alternative of a pattern."""
    teachers = (name.removesuffix("_logps") for name in available if name.endswith("_logps"))
    return "|".join(map(re.escape, dict.fromkeys((*_SOURCES, *teachers))))


def _derive(name: str, sources: str) -> Provider | None:
    """Finds the rule for `{source}_{sequence|mean}_logps` [N] and for `chosen_`/`rejected_` forms of any [N, ...]."""
    if match := re.fullmatch(rf"({sources})_(sequence|mean)_({_STEPWISE})", name):
        reduce = (
            "mmalign.losses.reductions:masked_sum"
            if match[2] == "sequence"
            else "mmalign.losses.reductions:masked_mean"
        )
        return _derived(name, "N", reduce, values=f"{match[1]}_{match[3]}", mask="step_mask")
    if match := re.fullmatch(rf"({sources})_(chosen|rejected)_(sequence|mean)_({_STEPWISE})", name):
        return _paired(name, f"{match[1]}_{match[3]}_{match[4]}", match[2])
    if match := _PAIRED.fullmatch(name):
        return _paired(name, match[2], match[1])
    return None


def _derive_companion(name: str, available: Mapping[str, Provider]) -> Provider | None:
    """Finds the rule for names with the role of a companion in the place of `chosen` or `rejected`."""
    sources = _sources(available)
    for row, provider in available.items():
        role = re.escape(row.removesuffix("_row"))
        if provider.stage != "companion":
            continue
        if match := re.fullmatch(rf"({sources})_{role}_(sequence|mean)_({_STEPWISE})", name):
            return _derived(name, "M", _TAKE_ROW, values=f"{match[1]}_{match[2]}_{match[3]}", rows=row)
        if match := re.fullmatch(rf"{role}_(?!row)(\w+)", name):
            return _derived(name, "M", _TAKE_ROW, values=match[1], rows=row)
    return None


def _paired(name: str, base: str, side: str) -> Provider:
    return _derived(name, "M", f"mmalign.contract.quantities:take_{side}", values=base, pairs="pairs")


def _derived(name: str, axes: str, compute: str, **inputs: str) -> Provider:
    return Provider(name, axes, "frozen", tuple(inputs.values()), compute, DERIVED, inputs=inputs)


def take_chosen(values: Tensor, pairs: Tensor) -> Tensor:
    """Picks the value of every pair's chosen response: [N, ...] and [M, 2] to [M, ...]."""
    return values.index_select(0, pairs[:, 0].to(values.device))


def take_rejected(values: Tensor, pairs: Tensor) -> Tensor:
    """Picks the value of every pair's rejected response: [N, ...] and [M, 2] to [M, ...]."""
    return values.index_select(0, pairs[:, 1].to(values.device))


def take_row(values: Tensor, rows: Tensor) -> Tensor:
    """Picks the value of every pair's companion: [N, ...] and [M] to [M, ...]; NaN where the row is -1."""
    numbers = values if values.is_floating_point() else values.float()
    return numbers[rows.clamp(min=0)].where((rows >= 0).reshape(-1, *[1] * (values.dim() - 1)), nan)


def find_teachers(needs: Sequence[str]) -> tuple[str, ...]:
    """Reads off the names of quantities which teachers they would be of: `dpo` of `dpo_mean_logps`."""
    sources = [match[1] for match in map(_FROZEN_MODEL.fullmatch, needs) if match]
    return tuple(dict.fromkeys(source for source in sources if source not in ("policy", "reference", "behaviour")))


_NO_FEEDBACK = (
    "sampled responses carry no such feedback; without `collector` the run trains on the feedback of its data"
)
_REMEDIES = {
    "pairs": _NO_FEEDBACK,
    "labels": _NO_FEEDBACK,
    "reference_logps": "the modality supplies log-probs of a reference only if it supplies log-probs",
    "behaviour_logps": "only a collector supplies it: add `collector: {name: group}`",
    "sampled": "only a collector supplies it: add `collector: {name: group}`",
    "stored": "only a collector that keeps the data's responses supplies it: add `collector: {name: mixed}`",
    "rewards": "add `rewards: [{name: ...}]` and a collector",
    "composite_rewards": "add `rewards: [{name: ...}]` and a collector",
    "advantages": "add `advantage: {name: ...}`, `rewards` and a collector",
}


def _explain_missing(name: str, consumer: str, available: Mapping[str, Provider], path: Sequence[str]) -> str:
    through = f" (through {path[0]!r})" if path else ""
    message = f"{consumer} needs the quantity {name!r}{through}, which nothing in this run supplies"
    if name in _REMEDIES:
        return f"{message}; {_REMEDIES[name]}"
    if name in POLICY_OUTPUTS:
        return f"{message}; a modality would have to provide {POLICY_OUTPUTS[name].value!r}"
    if match := _FROZEN_MODEL.fullmatch(name):
        if match[1] in ("policy", "reference", "behaviour") or f"{match[1]}_logps" in available:
            return f"{message}; a modality would have to provide {match[2]!r}"
        return f"{message}; {match[1]!r} would be a frozen model: add `teachers: {{{match[1]}: {{model: ...}}}}`"
    return message + suggest(name, available)
