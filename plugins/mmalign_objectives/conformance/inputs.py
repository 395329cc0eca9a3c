"""What most golden-vector cases of pairs come with: sums of log-probs and lengths, all [M], float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

Values = Mapping[str, Any]
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def sums(inputs: Values) -> tuple[Tensor, Tensor]:
    """The policy's log-probs of the chosen and the rejected responses."""
    return inputs["policy_chosen_logps"], inputs["policy_rejected_logps"]


def reference_sums(inputs: Values) -> Four:
    """Those of the policy, then those of the reference."""
    return *sums(inputs), inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]


def means(inputs: Values) -> tuple[Tensor, Tensor]:
    """`sums`, divided by the lengths."""
    chosen, rejected = sums(inputs)
    return chosen / inputs["chosen_lengths"], rejected / inputs["rejected_lengths"]


def reference_means(inputs: Values) -> Four:
    """`reference_sums`, divided by the lengths."""
    chosen, rejected = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
    return *means(inputs), chosen / inputs["chosen_lengths"], rejected / inputs["rejected_lengths"]
