"""Who can supply quantities: the records, the modality, the collector and the rewards, plugins."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.contract.batch import DATA_AXES, ROLLOUT_AXES
from mmalign.contract.forward_plan import FROZEN_OUTPUTS, POLICY_OUTPUTS, Divergence
from mmalign.contract.provider import Provider
from mmalign.contract.specs import CollectorSpec, ModalitySpec, QuantitySpec

_FEEDBACK = {"pairs": "pairs", "pair_strength": "pairs", "labels": "labels", "labelled": "labels"}
_FEEDBACK |= {"ratings": "ratings", "ranks": "ranks"}
"""Quantities that exist only where records carry feedback, and the name of that feedback."""


def data_providers(collector: CollectorSpec | None = None) -> list[Provider]:
    """Providers of the quantities that records themselves hold; sampled ones hold the feedback of their collector."""
    whole = collector is None or collector.stored
    return [
        Provider(name, axes, "data")
        for name, axes in DATA_AXES.items()
        if whole or name not in _FEEDBACK or (collector and _FEEDBACK[name] in collector.provides)
    ]


def modality_providers(spec: ModalitySpec, teachers: Sequence[str] = ()) -> list[Provider]:
    """Providers of what a modality's forward pass gives, for the policy, the reference and `teachers`."""
    origin = f"modality {spec.name}"
    provided = [(name, output) for name, output in POLICY_OUTPUTS.items() if output in spec.provides]
    providers = [Provider(name, output.axes, "policy", origin=origin) for name, output in provided]
    for model in ("reference", *teachers):
        providers += [
            Provider(f"{model}_{output.value}", output.axes, "frozen", origin=origin)
            for output in FROZEN_OUTPUTS
            if output in spec.provides
        ]
        providers += [
            Provider(kind.of(model), "NT", "policy", (f"{model}_states",), origin=origin)
            for kind in Divergence
            if kind in spec.provides
        ]
    return providers


def rollout_providers(reward_names: Sequence[str], *, stored: bool = False) -> list[Provider]:
    """Providers that exist only where the policy is sampled; with `stored`, beside the responses of the data."""
    names = [name for name in ROLLOUT_AXES if stored or name != "stored"]
    providers = [Provider(name, ROLLOUT_AXES[name], "frozen", origin="collector") for name in names]
    if reward_names:
        providers.append(Provider("rewards", "NK", "frozen", origin="rewards"))
        providers.append(Provider("composite_rewards", "N", "frozen", origin="rewards"))
    return providers


def plugin_provider(spec: QuantitySpec, origin: str) -> Provider:
    """Provider of a quantity that a plugin registered."""
    return Provider(
        spec.name,
        spec.axes,
        spec.stage,
        (),
        spec.compute,
        origin,
        module=spec.module,
        spec=spec,
        min_prompts=spec.min_prompts,
    )
