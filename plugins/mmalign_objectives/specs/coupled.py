"""Losses that couple all responses of the global batch. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec, QuantitySpec

_AOT = "Distributional Preference Alignment of LLMs via Optimal Transport (arXiv:2406.05882)"
_BCO = "Binary Classifier Optimization for Large Language Model Alignment (arXiv:2404.04656)"


def list_coupled() -> list[ObjectiveSpec]:
    """Lists the specs."""
    aot = ObjectiveSpec(
        name="aot",
        aliases=("aot_paired",),
        summary="Policy margins of chosen over rejected shall dominate those of the reference, quantile by quantile.",
        loss="mmalign_objectives.aot:aot_loss",
        config="mmalign_objectives.aot:AOTConfig",
        per="pair",
        equation="-logsigmoid(beta (sort(pc - pr) - sort(rc - rr))), sorted over the global batch",
        paper=_AOT,
    )
    unpaired = replace(
        aot,
        name="aot_unpaired",
        aliases=(),
        summary="Log-ratios of chosen responses shall dominate those of rejected ones, quantile by quantile.",
        loss="mmalign_objectives.aot:aot_unpaired_loss",
        equation="-logsigmoid(beta (sort(pc - rc) - sort(pr - rr))), sorted over the global batch",
    )
    return [aot, unpaired, _bco()]


def _bco() -> ObjectiveSpec:
    return ObjectiveSpec(
        name="bco",
        summary="Classifies single labelled responses by their implicit reward, less its running mean.",
        loss="mmalign_objectives.bco:bco_loss",
        config="mmalign_objectives.bco:BCOConfig",
        per="response",
        over="labelled",
        equation="-weight logsigmoid(+-beta (p - r - mean_log_ratio)), + desirable, - undesirable",
        paper=_BCO,
    )


def list_coupled_quantities() -> list[QuantitySpec]:
    """Lists what these objectives need beside the quantities of the contract."""
    margins = QuantitySpec(
        name="quantile_partners_of_margins",
        summary="Reference margin of the rank that a pair's policy margin has in the global batch.",
        axes="M",
        stage="step",
        compute="mmalign_objectives.aot:match_margins",
        paper=_AOT,
    )
    return [
        QuantitySpec(
            name="current_sequence_logps",
            summary="The policy's log-prob of every response as the optimiser step begins, summed over steps.",
            axes="N",
            stage="step",
            compute="mmalign_objectives.current:compute_current_sequence_logps",
            needs=("step_mask",),
        ),
        margins,
        replace(
            margins,
            name="quantile_partners_of_chosen",
            summary="Log-prob with which chosen would have the rejected log-ratio of its rank in the global batch.",
            compute="mmalign_objectives.aot:match_chosen",
        ),
        replace(
            margins,
            name="quantile_partners_of_rejected",
            summary="Log-prob with which rejected would have the chosen log-ratio of its rank in the global batch.",
            compute="mmalign_objectives.aot:match_rejected",
        ),
        QuantitySpec(
            name="mean_log_ratio",
            summary="Mean log-ratio of policy and reference over the labelled responses of all steps so far.",
            axes="",
            stage="step",
            compute="mmalign_objectives.bco:compute_mean_log_ratio",
            paper=_BCO,
        ),
        QuantitySpec(
            name="density_ratios",
            summary="Odds that a response to the prompt is desirable, from `desirability` in `meta`; 1 if unknown.",
            axes="N",
            stage="data",
            compute="mmalign_objectives.bco:compute_density_ratios",
            paper=_BCO,
        ),
    ]
