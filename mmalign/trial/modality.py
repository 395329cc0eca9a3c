"""Asks a modality for the planned outputs of a few encoded responses, where loading it costs next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import torch

from mmalign.contract.forward_plan import ForwardPlan, Output
from mmalign.contract.modality import Modality
from mmalign.contract.quantities import Plan
from mmalign.contract.values import Anchor, EncodedResponse
from mmalign.errors import PluginError
from mmalign.foreign import foreign_code, name_origin
from mmalign.networks.augmentation import Networks, augment_responses, evaluated
from mmalign.networks.policy import Policy

SMALL = 1_000_000
"""Parameters of a network that `check` may load."""


def check_announced(modality: Modality, plan: Plan) -> None:
    """Checks that a modality that announces more than log-probs overrides what would give it.

    Raises:
        PluginError: it does not.
    """
    beyond = [name for name in plan.forward.axes() if name != Output.LOGPS]
    if beyond and type(modality).step_outputs is Modality.step_outputs:
        raise PluginError(
            f"modality {type(modality).__name__} of {name_origin(modality)} announces {beyond[0]!r} in `provides`, but "
            "does not override step_outputs, which gives log-probs alone"
        )


def is_tried(modality: Modality) -> bool:
    """Returns whether a modality is loaded for a trial: its answers are a plugin's own code, and it is small.

    One that does not say how large it is counts as small.
    """
    answering = type(modality).step_outputs
    if answering is Modality.step_outputs:
        answering = type(modality).step_log_probs  # type: ignore[assignment]
    if answering.__module__.partition(".")[0] == "mmalign":
        return False
    if type(modality).parameter_counts is Modality.parameter_counts:
        return True
    counts = modality.parameter_counts()
    return counts is not None and counts[0] <= SMALL


def try_modality(modality: Modality, plan: Plan, responses: Sequence[EncodedResponse]) -> None:
    """Loads the network on the CPU and checks one pass over `responses`.

    Raises:
        PluginError: it raises, or answers something else than was planned.
        MmalignError: it cannot be loaded.
    """
    who = f"modality {type(modality).__name__}"
    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        with foreign_code(who, modality):
            model = modality.load(device=device, dtype=torch.float32)
        heads = [name for name in (Output.SCORES, Output.VALUES) if name in plan.forward.outputs]
        policy = Policy(modality, model, [head.value for head in heads])
        networks = Networks(device, nullcontext, dict.fromkeys(modality.required_networks, partial(evaluated, policy)))
        with foreign_code(who, modality):
            completed, _ = augment_responses(modality, networks, responses, len(responses))
        anchors = _build_anchors(policy, plan, completed)
        policy(completed, plan.forward, anchors)


def _build_anchors(policy: Policy, plan: Plan, responses: Sequence[EncodedResponse]) -> dict[str, Anchor]:
    """Takes the policy itself for every frozen model that it is compared with."""
    if not any(plan.forward.divergences.values()):
        return {}
    states = policy(responses, ForwardPlan.of(Output.STATES))[Output.STATES.value]
    anchor = Anchor(states, policy.modality.head(policy.network))
    return dict.fromkeys(plan.forward.divergences, anchor)
