"""Single labelled responses. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec


def list_unpaired() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="kto",
            summary="Prospect-theoretic value of single labelled responses.",
            loss="mmalign_objectives.kto:kto_loss",
            config="mmalign_objectives.kto:KTOConfig",
            per="response",
            needs=("policy_sequence_logps", "reference_sequence_logps", "labels", "kl_reference_point"),
            over="labelled",
            equation="weight (1 - sigmoid(+-beta (p - r - kl_reference_point))), + desirable, - undesirable",
            paper="KTO: Model Alignment as Prospect Theoretic Optimization (arXiv:2402.01306)",
        ),
    ]
