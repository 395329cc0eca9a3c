"""Which golden-vector cases the objectives can compute, by method; imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ConformanceSpec

_SUMS = ("policy_chosen_logps", "policy_rejected_logps")
_REFERENCE_SUMS = (*_SUMS, "ref_chosen_logps", "ref_rejected_logps")
_LISTS = ("list_policy_logps", "list_ref_logps", "list_labels")
_LEVELS = ("list_policy_logps", "list_ref_logps", "list_lengths", "list_levels")
_LENGTHS = ("chosen_lengths", "rejected_lengths")
_STEPS = ("logp_new", "logp_old")
_LOCAL_TOKEN_MEAN = "grpo loss, local token mean (TRL calls it bnpo; it is NOT Beta normalisation)"

_PARTS = {
    "hinge_dpo": "hinge",
    "cpo_prefer": "cpo",
    "cpo_full_meannll": "cpo",
    "orpo_or_term": "orpo",
    "orpo_full": "orpo",
    "bradley-terry": "reward_model",
    "fdpo_forward_kl": "f_dpo",
    "fdpo_js": "f_dpo",
    "fdpo_alpha": "f_dpo",
    "dpo_ref_gamma": "dpo_gamma",
    "vpo_offline_cal_chosen": "vpo_offline",
    "vpo_online_cal_rejected": "vpo_online",
    "mcts_dpo_conservative": "mcts_dpo",
    "tpo": "tpo_triple",
    "tpo_l": "tpo_triple_l",
    "rationale_dpo_code": "rationale_dpo",
    "rationale_dpo_paper": "rationale_dpo",
    "lipo_point_mse": "lipo_point_square",
    "lipo_pair_mse": "lipo_pair_square",
    "irpo_code": "in_context_ranking",
    "trpa_batch": "trpa",
    "bco_pair_noshift": "bco",
    "ppo clip": "policy_gradient",
    "grpo two-sided clip": "grpo",
    "kl estimator": "kl_penalty",
    _LOCAL_TOKEN_MEAN: "policy_gradient",
    "diffusion-dpo": "diffusion_dpo",
    "flow-dpo": "diffusion_dpo",
    "diffusion-kto": "diffusion_kto",
    "ddpo": "ddpo_is",
    "reg-grpo": "reg_grpo",
}
"""The objective whose formula a method is, where its name is another."""


def list_conformance() -> list[ConformanceSpec]:
    """Lists the specs of all methods."""
    specs = [*_pairs(), *_more_pairs(), *_graded(), *_lists(), *_coupled(), *_steps(), *_diffusion(), *_trajectories()]
    return [
        spec if spec.parts or spec.method not in _PARTS else replace(spec, parts=(_PARTS[spec.method],))
        for spec in specs
    ]


def _pairs() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance.preferences"
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


def _more_pairs() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance.pairs"
    lengths = (*_REFERENCE_SUMS, *_LENGTHS)
    return [
        ConformanceSpec("nca_pair", f"{module}:compute_nca_pair", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("exo_pair", f"{module}:compute_exo", _REFERENCE_SUMS, ("beta", "eps")),
        ConformanceSpec("apo_zero", f"{module}:compute_apo_zero", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("apo_down", f"{module}:compute_apo_down", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("discopop", f"{module}:compute_discopop", _REFERENCE_SUMS, ("beta", "tau")),
        ConformanceSpec("sppo_hard", f"{module}:compute_sppo_hard", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("ln_dpo", f"{module}:compute_ln_dpo", lengths, ("beta",)),
        ConformanceSpec("robust_dpo", f"{module}:compute_robust_dpo", _REFERENCE_SUMS, ("beta", "eps")),
        ConformanceSpec("fdpo_forward_kl", f"{module}:compute_forward_kl", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("fdpo_js", f"{module}:compute_jensen_shannon", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("fdpo_alpha", f"{module}:compute_alpha_divergence", _REFERENCE_SUMS, ("beta", "alpha")),
        ConformanceSpec("dpo_ref_gamma", f"{module}:compute_dpo_gamma", _REFERENCE_SUMS, ("beta", "gamma")),
        ConformanceSpec("flex_dpo", f"{module}:compute_flex_dpo", _REFERENCE_SUMS, ("beta_plus", "beta_minus")),
        ConformanceSpec("rpo_sum", f"{module}:compute_rpo_sum", _REFERENCE_SUMS, ("beta", "eta")),
        ConformanceSpec("rpo_mean", f"{module}:compute_rpo_mean", lengths, ("beta", "eta")),
        ConformanceSpec("vpo_offline_cal_chosen", f"{module}:compute_vpo_offline", _REFERENCE_SUMS, ("beta", "alpha")),
        ConformanceSpec("vpo_online_cal_rejected", f"{module}:compute_vpo_online", _REFERENCE_SUMS, ("beta", "alpha")),
        ConformanceSpec("asft", f"{module}:compute_asft", (*_SUMS, *_LENGTHS), ("lam",)),
    ]


def _graded() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance.graded"
    rewards = ("chosen_reward", "rejected_reward")
    chosen = ("policy_chosen_logps", "ref_chosen_logps")
    advantage = (*chosen, "advantage")
    margins = (*_REFERENCE_SUMS, "chosen_margin", "rejected_margin")
    gold, rationale = (*_SUMS, "gold_logps", "gold_lengths"), (*_REFERENCE_SUMS, "rationale_logps")
    visits, values = (*_REFERENCE_SUMS, "visits_w", "visits_l"), (*_REFERENCE_SUMS, "value_w", "value_l")
    return [
        ConformanceSpec("modpo", f"{module}:compute_modpo", margins, ("beta", "w")),
        ConformanceSpec("copg", f"{module}:compute_copg", (*_REFERENCE_SUMS, *rewards), ("beta",)),
        ConformanceSpec("irepo", f"{module}:compute_irepo", (*_REFERENCE_SUMS, "pref_prob"), ("beta",)),
        ConformanceSpec("step_apo", f"{module}:compute_step_apo", values, ("beta",)),
        ConformanceSpec("mcts_dpo_conservative", f"{module}:compute_mcts_dpo", visits, ("beta",)),
        ConformanceSpec("a_lol", f"{module}:compute_a_lol", advantage, ("clip",)),
        ConformanceSpec("a_lol_ref_free", f"{module}:compute_a_lol_ref_free", ("policy_chosen_logps", "advantage")),
        ConformanceSpec("a_lol_kl", f"{module}:compute_a_lol_kl", advantage, ("kl_beta",)),
        ConformanceSpec("r_lol", f"{module}:compute_r_lol", (*chosen, "chosen_reward"), ("clip",)),
        ConformanceSpec("tpo", f"{module}:compute_tpo", gold, ("beta", "alpha")),
        ConformanceSpec("tpo_l", f"{module}:compute_tpo_l", (*gold, *_LENGTHS), ("beta", "gamma", "alpha")),
        ConformanceSpec("rationale_dpo_code", f"{module}:compute_rationale_code", rationale, ("beta", "gamma")),
        ConformanceSpec("rationale_dpo_paper", f"{module}:compute_rationale_paper", rationale, ("beta", "gamma")),
    ]


def _lists() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance.lists"
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
    module = "mmalign_objectives.conformance.coupled"
    return [
        ConformanceSpec("aot", f"{module}:compute_aot", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("aot_unpaired", f"{module}:compute_aot_unpaired", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("bco", f"{module}:compute_bco", _REFERENCE_SUMS, ("beta",)),
        ConformanceSpec("bco_pair_noshift", f"{module}:compute_bco_pair", _REFERENCE_SUMS, ("beta",)),
    ]


def _steps() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance.steps"
    clip = ("eps_low", "eps_high")
    return [
        ConformanceSpec("ppo clip", f"{module}:compute_ppo_clip", _STEPS, (*clip, "agg")),
        ConformanceSpec("grpo", f"{module}:compute_grpo", _STEPS, clip),
        ConformanceSpec(_LOCAL_TOKEN_MEAN, f"{module}:compute_step_mean", _STEPS, clip),
        ConformanceSpec("dapo", f"{module}:compute_step_mean", _STEPS, clip),
        ConformanceSpec("dr_grpo", f"{module}:compute_dr_grpo", _STEPS, (*clip, "max_completion_length")),
        ConformanceSpec("grpo two-sided clip", f"{module}:compute_two_sided", _STEPS, (*clip, "delta")),
        ConformanceSpec("gspo", f"{module}:compute_gspo", _STEPS, clip),
        ConformanceSpec("opmd", f"{module}:compute_opmd", _STEPS, ("clip_mode", "weight", "regularizer_coef")),
        ConformanceSpec("kl estimator", f"{module}:compute_kl", ("logp_new", "logp_ref"), ("estimator",)),
    ]


def _diffusion() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance.diffusion"
    noise = ("eps_pol_w", "eps_pol_l", "eps_ref_w", "eps_ref_l", "noise")
    samples = ("eps_ref_w", "noise", "eps_ref_r", "noise_ref_sample")
    flows = ("x0_w", "x0_l", "noise", "flow_pol_w", "flow_pol_l", "flow_ref_w", "flow_ref_l")
    predictions = ("inv_pol_w", "inv_pol_l", "inv_ref_w", "inv_ref_l")
    inverted = ("x0_w", "x0_l", "inv_x_w", "inv_x_l", "inv_timesteps", *predictions)
    errors = ("mapo_pol_w", "mapo_pol_l", "noise")
    ratings, smoothing = ("reward_w", "reward_l"), ("beta", "gamma", "min", "max")
    return [
        ConformanceSpec("diffusion-dpo", f"{module}:compute_diffusion_dpo", noise, ("beta",)),
        ConformanceSpec("diffusion-dpo", f"{module}:compute_diffusion_dpo_sum", noise, ("beta*T*omega",)),
        ConformanceSpec("flow-dpo", f"{module}:compute_flow_dpo", flows, ("beta",)),
        ConformanceSpec("inpo", f"{module}:compute_inpo", inverted, ("beta",)),
        ConformanceSpec("smpo", f"{module}:compute_smpo", (*inverted, *ratings), smoothing),
        ConformanceSpec("seppo", f"{module}:compute_seppo", samples),
        ConformanceSpec("mapo", f"{module}:compute_mapo_code", errors, ("beta_mapo", "snr_value", "T")),
        ConformanceSpec("mapo", f"{module}:compute_mapo_paper", errors, ("beta",)),
        ConformanceSpec("diffusion-kto", f"{module}:compute_diffusion_kto", noise, ("beta", "labels")),
    ]


def _trajectories() -> list[ConformanceSpec]:
    module = "mmalign_objectives.conformance.trajectories"
    steps, sides = ("step_lp_new", "adv"), ("d3po_lp_w", "d3po_lp_l", "d3po_ref_w", "d3po_ref_l")
    return [
        ConformanceSpec("ddpo", f"{module}:compute_ddpo_clipped", (*steps, "step_lp_old"), ("clip",)),
        ConformanceSpec("ddpo", f"{module}:compute_ddpo_score_function", steps, parts=("ddpo_sf",)),
        ConformanceSpec("d3po", f"{module}:compute_d3po", sides, ("beta", "eps")),
        ConformanceSpec("reg-grpo", f"{module}:compute_reg_grpo", ("reg_rho",), ("rewards",)),
    ]
