"""The policy's log-probs as an optimiser step begins: what couples the responses of the global batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mmalign import QuantitySpec

if TYPE_CHECKING:
    from mmalign import StepContext

SPECS = (
    QuantitySpec(
        name="current_sequence_logps",
        summary="The policy's log-prob of every response as the optimiser step begins, summed over steps.",
        compute=f"{__name__}:compute_current_sequence_logps",
        axes="N",
        stage="step",
        needs=("step_mask",),
    ),
)


def compute_current_sequence_logps(context: StepContext) -> Tensor:
    """Scores every response with the policy before the step, without dropout: [N], nats, summed over steps."""
    return context.policy_sequence_logps()
