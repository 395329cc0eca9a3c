"""Terms to be added to other objectives. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec


def list_penalties() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="kl_penalty",
            summary="KL to the reference, to be added to another objective.",
            loss="mmalign_objectives.kl_penalty:kl_penalty_loss",
            config="mmalign_objectives.kl_penalty:KLPenaltyConfig",
            per="step",
            needs=("policy_logps", "reference_logps", "step_mask"),
            equation="k1: d; k2: d^2 / 2; k3: exp(-d) + d - 1; d = policy_logps - reference_logps",
            paper="Approximating KL Divergence (Schulman, 2020)",
        ),
    ]
