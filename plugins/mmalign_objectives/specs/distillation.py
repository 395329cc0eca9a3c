"""Pairs, along which a policy learns from teachers. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec


def list_distillation() -> list[ObjectiveSpec]:
    """Lists the specs."""
    paper = "Advantage-Guided Distillation for Preference Alignment in Small Language Models (arXiv:2502.17927)"
    return [
        ObjectiveSpec(
            name="dckd",
            summary="Likelihood of the chosen response and KL from an aligned teacher along both responses.",
            loss="mmalign_objectives.adpa:dckd_loss",
            config="mmalign_objectives.adpa:DCKDConfig",
            per="pair",
            log_prob_kinds=("exact",),
            equation="-pc / lc + kl_weight (mean_t KL(T, p) on chosen + mean_t KL(T, p) on rejected)",
            paper=paper,
        ),
        ObjectiveSpec(
            name="adpa",
            summary="Likelihood of the chosen response and expected advantage by two teachers along the rejected one.",
            loss="mmalign_objectives.adpa:adpa_loss",
            config="mmalign_objectives.adpa:ADPAConfig",
            per="pair",
            log_prob_kinds=("exact",),
            equation="-pc / lc - gamma mean_t sum over v of p(v) beta (log dpo_teacher(v) - log reference_teacher(v))",
            paper=paper,
        ),
    ]
