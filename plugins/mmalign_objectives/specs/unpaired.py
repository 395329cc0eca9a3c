"""Single labelled responses. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec


def list_unpaired() -> list[ObjectiveSpec]:
    """Lists the specs."""
    kto = ObjectiveSpec(
        name="kto",
        summary="Prospect-theoretic value of single labelled responses.",
        loss="mmalign_objectives.kto:kto_loss",
        config="mmalign_objectives.kto:KTOConfig",
        per="response",
        over="labelled",
        equation="weight (1 - sigmoid(+-beta (p - r - kl_reference_point))), + desirable, - undesirable",
        paper="KTO: Model Alignment as Prospect Theoretic Optimization (arXiv:2402.01306)",
    )
    apo = replace(
        kto,
        name="apo_zero_unpaired",
        summary="KTO with reference point 0: rewards of single labelled responses are judged by their sign.",
        loss="mmalign_objectives.kto:apo_zero_unpaired_loss",
        equation="weight (1 - sigmoid(+-beta (p - r))), + desirable, - undesirable",
        paper="Anchored Preference Optimization and Contrastive Revisions (arXiv:2408.06266)",
    )
    return [kto, apo]
