"""Which golden-vector cases the objectives can compute, by method; imports no torch."""

from __future__ import annotations

from mmalign import ConformanceSpec

_SUMS = ("policy_chosen_logps", "policy_rejected_logps")
_REFERENCE_SUMS = (*_SUMS, "ref_chosen_logps", "ref_rejected_logps")
_LISTS = ("list_policy_logps", "list_ref_logps", "list_labels")
_LEVELS = ("list_policy_logps", "list_ref_logps", "list_lengths", "list_levels")
_LENGTHS = ("chosen_lengths", "rejected_lengths")
_STEPS = ("logp_new", "logp_old")
_LOCAL_TOKEN_MEAN = "grpo loss, local token mean (TRL calls it bnpo; it is NOT Beta normalisation)"


def list_conformance() -> list[ConformanceSpec]:
    """Lists the specs of all methods."""
    return [*_pairs(), *_lists(), *_coupled(), *_steps()]


def _pairs() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance"
    return [
        ConformanceSpec("dpo", f"{module}:compute_dpo", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("cdpo", f"{module}:compute_dpo", _REFERENCE_SUMS, ("beta", "eps")),
        ConformanceSpec("ipo_sum", f"{module}:compute_ipo_sum", _REFERENCE_SUMS, ("tau",)),
        ConformanceSpec("ipo_mean", f"{module}:compute_ipo_mean", (*_REFERENCE_SUMS, *_LENGTHS), ("tau",)),
        ConformanceSpec("hinge_dpo", f"{module}:compute_hinge", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("slic_hf", f"{module}:compute_slic_hf", _SUMS, ("delta", "lam")),
        ConformanceSpec("simpo", f"{module}:compute_simpo", (*_SUMS, *_LENGTHS), ("beta",)),
        ConformanceSpec("cpo_prefer", f"{module}:compute_cpo_prefer", _SUMS, ("beta",)),
        ConformanceSpec("cpo_full_meannll", f"{module}:compute_cpo", (*_SUMS, "chosen_lengths"), ("beta", "lam")),
        ConformanceSpec("orpo_or_term", f"{module}:compute_odds_term", (*_SUMS, *_LENGTHS), ("lam",)),
        ConformanceSpec("orpo_full", f"{module}:compute_orpo", (*_SUMS, *_LENGTHS), ("lam",)),
        ConformanceSpec("kto", f"{module}:compute_kto", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("bradley-terry", f"{module}:compute_reward_model", ("chosen", "rejected")),
    ]


def _lists() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance_lists"
    ranking = ("lambda", "point_mse", "point_sigmoid", "pair_logistic", "pair_hinge", "pair_mse", "list_mle", "softmax")
    lipo = [f"lipo_{name}" for name in ranking]
    return [
        *[ConformanceSpec(name, f"{module}:compute_{name}", _LISTS, ("beta",)) for name in lipo],
        ConformanceSpec("pro", f"{module}:compute_pro", (*_LISTS, "list_lengths"), ("sft_weight",)),
        ConformanceSpec("irpo_code", f"{module}:compute_in_context_ranking", (*_LISTS, "list_lengths"), ("beta",)),
        ConformanceSpec("trpa_batch", f"{module}:compute_trpa", _LEVELS, ("beta", "anisotropy")),
        ConformanceSpec("nca_list", f"{module}:compute_nca_list", _LISTS, ("beta", "alpha")),
        ConformanceSpec("info_nca", f"{module}:compute_info_nca", _LISTS, ("beta", "alpha")),
    ]


def _coupled() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance_coupled"
    return [
        ConformanceSpec("aot", f"{module}:compute_aot", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("aot_unpaired", f"{module}:compute_aot_unpaired", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("bco", f"{module}:compute_bco", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("bco_pair_noshift", f"{module}:compute_bco_pair", _REFERENCE_SUMS, ("beta",)),
    ]


def _steps() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance_steps"
    clip = ("eps_low", "eps_high")
    return [
        ConformanceSpec("ppo clip", f"{module}:compute_ppo_clip", _STEPS, (*clip, "agg")),
        ConformanceSpec("grpo", f"{module}:compute_grpo", _STEPS, clip),
        ConformanceSpec(_LOCAL_TOKEN_MEAN, f"{module}:compute_step_mean", _STEPS, clip),
        ConformanceSpec("dapo", f"{module}:compute_step_mean", _STEPS, clip),
        ConformanceSpec("dr_grpo", f"{module}:compute_dr_grpo", _STEPS, (*clip, "max_completion_length")),
        ConformanceSpec("grpo two-sided clip", f"{module}:compute_two_sided", _STEPS, (*clip, "delta")),
        ConformanceSpec("gspo", f"{module}:compute_gspo", _STEPS, clip),
        ConformanceSpec("kl estimator", f"{module}:compute_kl", ("logp_new", "logp_ref"), ("estimator",)),
    ]
