"""Pairs, judged with the whole distributions of their steps against a reference. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec
from mmalign_objectives.specs.needs import REFERENCE_SUMS, SUMS

_TDPO = "Token-level Direct Preference Optimization (arXiv:2404.11999)"


def list_token_pairs() -> list[ObjectiveSpec]:
    """Lists the specs."""
    tdpo1 = ObjectiveSpec(
        name="tdpo1",
        summary="Token-level DPO, first form: DPO less the difference of the forward KLs of both responses.",
        loss="mmalign_objectives.tdpo:tdpo_loss",
        config="mmalign_objectives.tdpo:TDPO1Config",
        per="pair",
        needs=(
            *SUMS,
            *REFERENCE_SUMS,
            "reference_chosen_sequence_forward_kl",
            "reference_rejected_sequence_forward_kl",
        ),
        log_prob_kinds=("exact",),
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr) - alpha (kr - kc))), k = sum_t KL(reference, policy)",
        paper=_TDPO,
    )
    tdpo2 = replace(
        tdpo1,
        name="tdpo2",
        summary="Token-level DPO, second form: the KL of the chosen response is a constant.",
        config="mmalign_objectives.tdpo:TDPO2Config",
        equation="-logsigmoid(beta ((pc - rc) - (pr - rr) - alpha (kr - detach(kc)))), k = sum_t KL(reference, policy)",
    )
    return [tdpo1, tdpo2]
