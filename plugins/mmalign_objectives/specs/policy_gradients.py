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
        *_denoising(clipped),
        *_without_clipping(),
    ]


def _denoising(clipped: ObjectiveSpec) -> list[ObjectiveSpec]:
    """Lists the clipped policy gradients on the steps of a sampler of diffusion or flow models."""
    ddpo = replace(
        clipped,
        name="ddpo_is",
        aliases=("ddpo",),
        summary="Clipped policy gradient with the narrow limits of DDPO, on the steps of a diffusion sampler.",
        config="mmalign_objectives.policy_gradient:DenoisingClipConfig",
        aggregation="sequence_mean",
        paper="Training Diffusion Models with Reinforcement Learning (arXiv:2305.13301)",
    )
    flow_grpo = replace(
        ddpo,
        name="flow_grpo",
        aliases=(),
        summary="DDPO on the steps of a stochastic flow sampler; add `reverse_kl` or `kl_penalty` with weight 0.04.",
        paper="Flow-GRPO: Training Flow Matching Models via Online RL (arXiv:2505.05470)",
    )
    dance_grpo = replace(
        ddpo,
        name="dance_grpo",
        aliases=(),
        summary="DDPO on the steps of a stochastic sampler whose initial noise a group shares; without a KL.",
        paper="DanceGRPO: Unleashing GRPO on Visual Generation (arXiv:2505.07818)",
    )
    return [ddpo, flow_grpo, dance_grpo]


def _without_clipping() -> list[ObjectiveSpec]:
    return [
        ObjectiveSpec(
            name="ddpo_sf",
            summary="Score-function policy gradient, for one update a round; a sum over the steps of a response.",
            loss="mmalign_objectives.score_function:score_function_loss",
            config="mmalign_objectives.score_function:ScoreFunctionConfig",
            per="step",
            aggregation="sequence_sum",
            # The score function is that of a probability; a bound has another gradient.
            log_prob_kinds=("exact",),
            equation="-advantages policy_logps",
            paper="Training Diffusion Models with Reinforcement Learning (arXiv:2305.13301)",
        ),
        ObjectiveSpec(
            name="reg_grpo",
            summary="Regresses standardised log-ratios of a group on its standardised rewards; add a `kl_penalty`.",
            loss="mmalign_objectives.reg_grpo:reg_grpo_loss",
            config="mmalign_objectives.reg_grpo:RegGRPOConfig",
            per="prompt",
            over="composite_rewards",
            # The regression on rewards is that of a log-ratio of probabilities.
            log_prob_kinds=("exact",),
            equation="mean_i ((R_i - mean R) / std R - (d_i - mean d) / sqrt(var d + epsilon^2))^2, d = p - b",
            paper="DeepVideo-R1: Video Reinforcement Fine-Tuning (Reg-GRPO) (arXiv:2506.07464)",
        ),
    ]
