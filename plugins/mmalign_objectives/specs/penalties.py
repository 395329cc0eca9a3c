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
        ObjectiveSpec(
            name="reverse_kl",
            summary="KL(policy, reference) over whole distributions, to be added to another objective.",
            loss="mmalign_objectives.exact_kl:exact_kl_loss",
            config="mmalign_objectives.exact_kl:ExactKLConfig",
            per="step",
            needs=("reference_reverse_kl", "step_mask"),
            log_prob_kinds=("exact",),
            equation="sum over v of p(v) (log p(v) - log r(v)); p policy, r reference",
            paper="Fine-Tuning Language Models from Human Preferences (arXiv:1909.08593)",
        ),
        ObjectiveSpec(
            name="forward_kl",
            summary="KL(reference, policy) over whole distributions, to be added to another objective.",
            loss="mmalign_objectives.exact_kl:exact_kl_loss",
            config="mmalign_objectives.exact_kl:ExactKLConfig",
            per="step",
            needs=("reference_forward_kl", "step_mask"),
            log_prob_kinds=("exact",),
            equation="sum over v of r(v) (log r(v) - log p(v)); p policy, r reference",
            paper="Token-level Direct Preference Optimization (arXiv:2404.11999)",
        ),
    ]
