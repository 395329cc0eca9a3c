"""Terms to be added to other objectives. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec


def list_penalties() -> list[ObjectiveSpec]:
    """Lists the specs."""
    penalty = ObjectiveSpec(
        name="kl_penalty",
        summary="KL to the reference, to be added to another objective.",
        loss="mmalign_objectives.kl_penalty:kl_penalty_loss",
        config="mmalign_objectives.kl_penalty:KLPenaltyConfig",
        names={"anchor_logps": "reference_logps"},
        per="step",
        equation="k1: d; k2: d^2 / 2; k3: exp(-d) + d - 1; d = policy_logps - reference_logps",
        paper="Approximating KL Divergence (Schulman, 2020)",
    )
    trust_region = replace(
        penalty,
        name="behaviour_kl_penalty",
        summary="KL to the policy that sampled, a trust region, to be added to another objective.",
        names={"anchor_logps": "behaviour_logps"},
        over="sampled",
        equation="k1: d; k2: d^2 / 2; k3: exp(-d) + d - 1; d = policy_logps - behaviour_logps",
    )
    sampled = ObjectiveSpec(
        name="sampled_kl",
        aliases=("hypo_kl",),
        summary="KL to the reference with its true gradient, from samples of the policy; HyPO is `dpo` plus this.",
        loss="mmalign_objectives.sampled_kl:sampled_kl_loss",
        per="prompt",
        over="sampled",
        # REINFORCE is about probabilities; a bound has another gradient.
        log_prob_kinds=("exact",),
        equation="mean_k p_k detach(p_k - r_k - mean over others of (p - r))",
        paper="The Importance of Online Data: Understanding Preference Fine-tuning via Coverage (arXiv:2406.01462)",
    )
    return [penalty, trust_region, sampled, *_exact()]


def _exact() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="reverse_kl",
            summary="KL(policy, reference) over whole distributions, to be added to another objective.",
            loss="mmalign_objectives.exact_kl:exact_kl_loss",
            config="mmalign_objectives.exact_kl:ExactKLConfig",
            names={"kl": "reference_reverse_kl"},
            per="step",
            log_prob_kinds=("exact",),
            equation="sum over v of p(v) (log p(v) - log r(v)); p policy, r reference",
            paper="Fine-Tuning Language Models from Human Preferences (arXiv:1909.08593)",
        ),
        ObjectiveSpec(
            name="forward_kl",
            summary="KL(reference, policy) over whole distributions, to be added to another objective.",
            loss="mmalign_objectives.exact_kl:exact_kl_loss",
            config="mmalign_objectives.exact_kl:ExactKLConfig",
            names={"kl": "reference_forward_kl"},
            per="step",
            log_prob_kinds=("exact",),
            equation="sum over v of r(v) (log r(v) - log p(v)); p policy, r reference",
            paper="Token-level Direct Preference Optimization (arXiv:2404.11999)",
        ),
    ]
