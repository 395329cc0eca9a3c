"""What one forward pass has to give, as a value: built by the planner, read by modality, token backend and heads alike.

Axes: N responses, T steps, D hidden size, L layers, A activations, C prompt positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum


class Output(str, Enum):
    """A tensor that a pass of a policy gives about every response. Members equal their names, so `"logps"` finds one.

    Attributes:
        axes: its axes, one letter each.
        quantity: the name of the quantity that it is for the policy; None for `states`, which are compared, not trained
            on.
    """

    LOGPS = "logps"
    """Log-prob of every step, nats."""
    ENTROPY = "entropy"
    """Entropy of every step's distribution, nats."""
    VALUES = "values"
    """What the value head predicts at every step."""
    SCORES = "scores"
    """What the score head gives the whole response."""
    STATES = "states"
    """What `Modality.head` turns into the logits of every step."""
    HIDDEN = "hidden"
    """The last hidden state that predicts a step."""
    LAYERS = "layers"
    """Those after every layer."""
    ACTIVATIONS = "activations"
    """The mean over units of each of A activations, at the same place."""
    CONTEXT = "context"
    """The last hidden states along the prompt, NaN beyond its end."""

    @property
    def axes(self) -> str:
        """Axes of the tensor, one letter each."""
        return _AXES.get(self, "NT")

    @property
    def quantity(self) -> str | None:
        """Name of the policy's quantity."""
        if self is Output.STATES:
            return None
        return self.value if self in (Output.ENTROPY, Output.VALUES, Output.SCORES) else f"policy_{self.value}"


_AXES = {
    Output.SCORES: "N",
    Output.STATES: "NTD",
    Output.HIDDEN: "NTD",
    Output.LAYERS: "NTLD",
    Output.ACTIVATIONS: "NTA",
    Output.CONTEXT: "NCD",
}

INNER_OUTPUTS = (Output.HIDDEN, Output.LAYERS, Output.ACTIVATIONS, Output.CONTEXT)
"""Outputs that show the inside of a network, for modules that are trained on it."""

FROZEN_OUTPUTS = (Output.LOGPS, Output.STATES, *INNER_OUTPUTS)
"""Outputs of the pass of a frozen model, the reference or a teacher; the quantities are `{model}_{output}`."""

POLICY_OUTPUTS: dict[str, Output] = {one.quantity: one for one in Output if one.quantity}
"""Outputs by the name of the policy's quantity."""


class Divergence(str, Enum):
    """What compares the policy's distribution of a step with that of a frozen model: [N, T], nats.

    Members equal their names. An output of the pass is called `{model}_{divergence}`.
    """

    FORWARD_KL = "forward_kl"
    """KL(model, policy)."""
    REVERSE_KL = "reverse_kl"
    """KL(policy, model)."""
    EXPECTED_LOGPS = "expected_logps"
    """Mean log-prob of a step under the model if the policy takes it."""

    def of(self, model: str) -> str:
        """Returns the name of the output that compares the policy with `model`."""
        return f"{model}_{self.value}"


@dataclass(frozen=True)
class ForwardPlan:
    """What one pass has to give.

    Attributes:
        outputs: tensors of the network that runs.
        divergences: comparisons with frozen models, by the model's name.
    """

    outputs: frozenset[Output] = frozenset()
    divergences: Mapping[str, frozenset[Divergence]] = field(default_factory=dict)

    @classmethod
    def of(cls, *outputs: Output | str, **divergences: Iterable[Divergence | str]) -> ForwardPlan:
        """Builds a plan from members or names: `ForwardPlan.of("logps", reference=["forward_kl"])`.

        Raises:
            ValueError: there is no output or divergence of that name.
        """
        compared = {model: frozenset(map(Divergence, kinds)) for model, kinds in divergences.items()}
        return cls(frozenset(map(Output, outputs)), compared)

    def axes(self) -> dict[str, str]:
        """Returns the axes of every tensor that the pass has to give, by name, in the order of their definition."""
        own = {one.value: one.axes for one in Output if one in self.outputs}
        compared = [kind.of(model) for model, kinds in self.divergences.items() for kind in Divergence if kind in kinds]
        return own | dict.fromkeys(compared, "NT")

    def __bool__(self) -> bool:
        return bool(self.outputs) or any(self.divergences.values())
