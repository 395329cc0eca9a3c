"""Likelihood of responses, and of preferences under a score head. Imports no torch."""

from __future__ import annotations

from mmalign import ObjectiveSpec


def list_supervised() -> list[ObjectiveSpec]:
    """Lists the specs."""
    return [
        ObjectiveSpec(
            name="sft",
            summary="Maximum likelihood of the target responses.",
            loss="mmalign_objectives.sft:sft_loss",
            config="mmalign_objectives.sft:SFTConfig",
            per="step",
            over="targets",
            equation="-policy_logps",
        ),
        ObjectiveSpec(
            name="reward_model",
            aliases=("bradley_terry",),
            summary="Bradley-Terry likelihood of preferences under a score head.",
            loss="mmalign_objectives.reward_model:reward_model_loss",
            config="mmalign_objectives.reward_model:RewardModelConfig",
            per="pair",
            equation="-logsigmoid((chosen - rejected - margin) / temperature) + centering (chosen + rejected)^2",
            paper="Training language models to follow instructions with human feedback (arXiv:2203.02155)",
        ),
        ObjectiveSpec(
            name="oreo",
            summary="Soft Bellman consistency of policy and value head on responses with an outcome.",
            loss="mmalign_objectives.oreo:oreo_loss",
            config="mmalign_objectives.oreo:OREOConfig",
            per="step",
            over="labelled",
            aggregation="sequence_mean",
            # Values and log-ratios add up to the outcome only if the log-ratios are those of probabilities.
            log_prob_kinds=("exact",),
            equation="(sg V_t - R + beta d_t + sg G_t+1)^2 + value_weight (V_t - R + sg G_t)^2, G_t = beta sum_i>=t d",
            paper="Offline Reinforcement Learning for LLM Multi-Step Reasoning (arXiv:2412.16145)",
        ),
    ]
