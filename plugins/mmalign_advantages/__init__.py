"""First-party advantage estimators: what there is, without importing torch."""

from __future__ import annotations

from mmalign import AdvantageSpec, ConformanceSpec, hookimpl


@hookimpl
def register_advantages() -> list[AdvantageSpec]:
    """Announces the estimators; all compare the responses to one prompt with each other."""
    return [
        AdvantageSpec(
            name="rloo",
            summary="Reward less the mean of the other responses to the prompt.",
            function="mmalign_advantages.rloo:rloo_advantages",
            config="mmalign_advantages.rloo:RLOOConfig",
            equation="R_i - mean of R_j over the other responses j",
            min_group=2,
            paper="Back to Basics: Revisiting REINFORCE-Style Optimization (arXiv:2402.14740)",
        ),
        AdvantageSpec(
            name="rloo_kl",
            summary="RLOO of rewards less beta times the log-ratio of the sampling policy to the reference.",
            function="mmalign_advantages.rloo:rloo_kl_advantages",
            config="mmalign_advantages.rloo:RLOOWithKLConfig",
            equation="R_i - mean of R_j over the others, R = reward - beta (behaviour_logps - reference_logps)",
            min_group=2,
            paper="Back to Basics: Revisiting REINFORCE-Style Optimization (arXiv:2402.14740)",
        ),
        AdvantageSpec(
            name="grpo",
            summary="Reward less the group mean, divided by the group's standard deviation.",
            function="mmalign_advantages.grpo:grpo_advantages",
            config="mmalign_advantages.grpo:GRPOConfig",
            equation="(R_i - mean) / (std + epsilon)",
            min_group=2,
            paper="DeepSeekMath: Pushing the Limits of Mathematical Reasoning (arXiv:2402.03300)",
        ),
        AdvantageSpec(
            name="dr_grpo",
            summary="Reward less the group mean.",
            function="mmalign_advantages.grpo:grpo_advantages",
            config="mmalign_advantages.grpo:DrGRPOConfig",
            equation="R_i - mean",
            min_group=2,
            paper="Understanding R1-Zero-Like Training: A Critical Perspective (arXiv:2503.20783)",
        ),
    ]


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors these estimators can compute."""
    return [
        ConformanceSpec("grpo", _golden("compute_grpo")),
        ConformanceSpec("grpo (scale_rewards=batch)", _golden("compute_grpo_batch"), parts=("grpo",)),
        ConformanceSpec("dr_grpo", _golden("compute_dr_grpo")),
        ConformanceSpec("rloo", _golden("compute_rloo"), parts=("rloo", "rloo_kl")),
        ConformanceSpec(
            "multi-objective GRPO", _golden("compute_weighted_grpo"), hparams=("weights",), parts=("grpo",)
        ),
    ]


def _golden(function: str) -> str:
    return f"mmalign_advantages.conformance:{function}"
