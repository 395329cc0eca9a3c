"""Policy gradients on sampled responses. Imports no torch."""

from __future__ import annotations

from dataclasses import replace

from mmalign import ObjectiveSpec


def list_policy_gradients() -> list[ObjectiveSpec]:
    """Lists the specs."""
    surrogate = "-min(ratio advantages, clip(ratio, 1 - clip_low, 1 + clip_high) advantages)"
    clipped = ObjectiveSpec(
        name="policy_gradient",
        aliases=("ppo_clip",),
        summary="Clipped policy gradient, a mean over steps.",
        loss="mmalign_objectives.policy_gradient:policy_gradient_loss",
        config="mmalign_objectives.policy_gradient:PolicyGradientConfig",
        per="step",
        needs=("policy_logps", "behaviour_logps", "advantages", "step_mask"),
        over="sampled",
        # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
        log_prob_kinds=("exact",),
        equation=surrogate,
        paper="Proximal Policy Optimization Algorithms (arXiv:1707.06347)",
    )
    return [
        clipped,
        replace(
            clipped,
            name="grpo",
            aliases=(),
            summary="Clipped policy gradient, a mean over responses of the mean over their steps.",
            config="mmalign_objectives.policy_gradient:GRPOConfig",
            aggregation="sequence_mean",
            paper="DeepSeekMath: Pushing the Limits of Mathematical Reasoning (arXiv:2402.03300)",
        ),
        replace(
            clipped,
            name="dr_grpo",
            aliases=(),
            summary="Clipped policy gradient, summed over steps and divided by a constant horizon.",
            config="mmalign_objectives.policy_gradient:DrGRPOConfig",
            aggregation="constant",
            paper="Understanding R1-Zero-Like Training: A Critical Perspective (arXiv:2503.20783)",
        ),
        replace(
            clipped,
            name="dapo",
            aliases=(),
            summary="Clipped policy gradient with a higher upper limit, a mean over steps.",
            config="mmalign_objectives.policy_gradient:DAPOConfig",
            paper="DAPO: An Open-Source LLM Reinforcement Learning System at Scale (arXiv:2503.14476)",
        ),
        replace(
            clipped,
            name="gspo",
            aliases=(),
            summary="Clipped policy gradient with one importance ratio a response.",
            loss="mmalign_objectives.policy_gradient:sequence_policy_gradient_loss",
            config="mmalign_objectives.policy_gradient:GSPOConfig",
            aggregation="sequence_mean",
            equation=f"{surrogate}, ratio = exp(mean over steps of the log-ratio)",
            paper="Group Sequence Policy Optimization (arXiv:2507.18071)",
        ),
    ]
