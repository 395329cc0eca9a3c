"""Single stored responses, weighted or pulled by what is known of each. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec


def list_weighted_responses() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="sppo",
            summary="Regresses every log-ratio on the win probability of the response.",
            loss="mmalign_objectives.sppo:sppo_loss",
            config="mmalign_objectives.sppo:SPPOConfig",
            per="response",
            over="win_probabilities",
            equation="(p - r - (P - 1/2) / beta)^2",
            paper="Self-Play Preference Optimization for Language Model Alignment (arXiv:2405.00675)",
        ),
        ObjectiveSpec(
            name="a_lol",
            summary="Likelihood of stored responses, weighted by positive advantage and clipped importance ratio.",
            loss="mmalign_objectives.a_lol:a_lol_loss",
            config="mmalign_objectives.a_lol:ALoLConfig",
            per="response",
            over="rating_advantages",
            # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
            log_prob_kinds=("exact",),
            equation="-max(A, 0) clip(exp(p - r), 1 - clip, 1 + clip) p",
            paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
        ),
        ObjectiveSpec(
            name="a_lol_ref_free",
            summary="Likelihood of stored responses, weighted by positive advantage.",
            loss="mmalign_objectives.a_lol:a_lol_ref_free_loss",
            per="response",
            over="rating_advantages",
            equation="-max(A, 0) p",
            paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
        ),
        ObjectiveSpec(
            name="a_lol_seq",
            summary="A-LoL with an importance ratio for every step.",
            loss="mmalign_objectives.a_lol:a_lol_seq_loss",
            config="mmalign_objectives.a_lol:ALoLConfig",
            per="response",
            over="rating_advantages",
            # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
            log_prob_kinds=("exact",),
            equation="-max(A, 0) sum_t clip(exp(p_t - r_t), 1 - clip, 1 + clip) p_t",
            paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
        ),
        ObjectiveSpec(
            name="a_lol_kl",
            summary="Likelihood of stored responses, weighted by positive advantage, with a KL penalty.",
            loss="mmalign_objectives.a_lol:a_lol_kl_loss",
            config="mmalign_objectives.a_lol:ALoLKLConfig",
            per="response",
            over="rating_advantages",
            equation="-max(A, 0) p + kl_weight (p - r)",
            paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
        ),
        ObjectiveSpec(
            name="r_lol",
            summary="Likelihood of stored responses, weighted by rating and clipped importance ratio.",
            loss="mmalign_objectives.r_lol:r_lol_loss",
            config="mmalign_objectives.r_lol:RLoLConfig",
            per="response",
            over="ratings",
            # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
            log_prob_kinds=("exact",),
            equation="-R clip(exp(p - r), 1 - clip, 1 + clip) p",
            paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
        ),
        ObjectiveSpec(
            name="weighted_cloning",
            summary="Weighted behaviour cloning: likelihood of stored responses, weighted by rating.",
            loss="mmalign_objectives.r_lol:weighted_cloning_loss",
            per="response",
            over="ratings",
            equation="-R p",
            paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
        ),
        ObjectiveSpec(
            name="reward_gold",
            summary="Likelihood of steps weighted by their own probability and the rating of the response.",
            loss="mmalign_objectives.r_lol:reward_gold_loss",
            config="mmalign_objectives.r_lol:RewardGOLDConfig",
            per="response",
            over="ratings",
            # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
            log_prob_kinds=("exact",),
            equation="-R sum_t max(exp(p_t), floor) p_t",
            paper="Improving Language Models with Advantage-based Offline Policy Gradients (arXiv:2305.14718)",
        ),
        ObjectiveSpec(
            name="implicit_reward_sft",
            summary="Experimental: fine-tuning as implicit reward learning by Pearson chi-squared or Hellinger.",
            loss="mmalign_objectives.implicit_reward_sft:implicit_reward_sft_loss",
            config="mmalign_objectives.implicit_reward_sft:ImplicitRewardSFTConfig",
            per="response",
            over="targets",
            equation="-r (total_variation), -r + r^2 / 4 (pearson) or exp(-r) (hellinger), r = beta (p - ref)",
            paper="Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections (arXiv:2507.00018)",
        ),
    ]
