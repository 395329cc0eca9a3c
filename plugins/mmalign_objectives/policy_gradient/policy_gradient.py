"""Clipped policy gradient, and the methods that are settings of it.

Importance ratio (`ratio`), clipping (`clipping`), aggregation (the engine) and KL (`kl_penalty`, an objective of its
own that is added to this one) are separate pieces; GRPO, Dr. GRPO, DAPO and GSPO choose among them, and so do DDPO,
Flow-GRPO and DanceGRPO, whose steps are those of a sampler.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from mmalign import ObjectiveSpec
from mmalign_objectives.support.aggregation import Aggregation, StepParameters
from mmalign_objectives.support.clipping import clip_surrogate, dual_clip, is_clipped
from mmalign_objectives.support.ratio import sequence_ratio, step_ratio
from mmalign_objectives.support.shapes import check_shapes

_POLICY_GRADIENT = ObjectiveSpec(
    name="policy_gradient",
    aliases=("ppo_clip",),
    summary="Clipped policy gradient, a mean over steps.",
    loss=f"{__name__}:policy_gradient_loss",
    config=f"{__name__}:PolicyGradientConfig",
    per="step",
    over="sampled",
    # An importance ratio is one of probabilities; a ratio of bounds corrects nothing.
    log_prob_kinds=("exact",),
    equation="-min(ratio advantages, clip(ratio, 1 - clip_low, 1 + clip_high) advantages)",
    paper="Proximal Policy Optimization Algorithms (arXiv:1707.06347)",
)
SPECS = (
    _POLICY_GRADIENT,
    replace(
        _POLICY_GRADIENT,
        name="grpo",
        aliases=(),
        summary="Clipped policy gradient, a mean over responses of the mean over their steps.",
        config=f"{__name__}:GRPOConfig",
        aggregation="sequence_mean",
        paper="DeepSeekMath: Pushing the Limits of Mathematical Reasoning (arXiv:2402.03300)",
    ),
    replace(
        _POLICY_GRADIENT,
        name="dr_grpo",
        aliases=(),
        summary="Clipped policy gradient, summed over steps and divided by a constant horizon.",
        config=f"{__name__}:DrGRPOConfig",
        aggregation="constant",
        paper="Understanding R1-Zero-Like Training: A Critical Perspective (arXiv:2503.20783)",
    ),
    replace(
        _POLICY_GRADIENT,
        name="dapo",
        aliases=(),
        summary="Clipped policy gradient with a higher upper limit, a mean over steps.",
        config=f"{__name__}:DAPOConfig",
        paper="DAPO: An Open-Source LLM Reinforcement Learning System at Scale (arXiv:2503.14476)",
    ),
    replace(
        _POLICY_GRADIENT,
        name="gspo",
        aliases=(),
        summary="Clipped policy gradient with one importance ratio a response.",
        loss=f"{__name__}:sequence_policy_gradient_loss",
        config=f"{__name__}:GSPOConfig",
        aggregation="sequence_mean",
        equation=(
            "-min(ratio advantages, clip(ratio, 1 - clip_low, 1 + clip_high) advantages), ratio = exp(mean "
            "over steps of the log-ratio)"
        ),
        paper="Group Sequence Policy Optimization (arXiv:2507.18071)",
    ),
    replace(
        _POLICY_GRADIENT,
        name="ddpo_is",
        aliases=("ddpo",),
        summary="Clipped policy gradient with the narrow limits of DDPO, on the steps of a diffusion sampler.",
        config=f"{__name__}:DenoisingClipConfig",
        aggregation="sequence_mean",
        paper="Training Diffusion Models with Reinforcement Learning (arXiv:2305.13301)",
    ),
    replace(
        _POLICY_GRADIENT,
        name="flow_grpo",
        aliases=(),
        summary="DDPO on the steps of a stochastic flow sampler; add `reverse_kl` or `kl_penalty` with weight 0.04.",
        config=f"{__name__}:DenoisingClipConfig",
        aggregation="sequence_mean",
        paper="Flow-GRPO: Training Flow Matching Models via Online RL (arXiv:2505.05470)",
    ),
    replace(
        _POLICY_GRADIENT,
        name="dance_grpo",
        aliases=(),
        summary="DDPO on the steps of a stochastic sampler whose initial noise a group shares; without a KL.",
        config=f"{__name__}:DenoisingClipConfig",
        aggregation="sequence_mean",
        paper="DanceGRPO: Unleashing GRPO on Visual Generation (arXiv:2505.07818)",
    ),
)


class PolicyGradientConfig(StepParameters):
    """Clipped policy gradient (PPO)."""

    clip_low: float = Field(default=0.2, ge=0, le=1)
    """How far the importance ratio may fall below 1 before a step gets zero gradient."""
    clip_high: float = Field(default=0.2, ge=0)
    """How far the importance ratio may rise above 1 before a step gets zero gradient."""
    dual_clip_limit: float | None = Field(default=None, gt=1)
    """Ratio from which on a step with negative advantage gets zero gradient, e.g. 3; none by default."""


class GRPOConfig(PolicyGradientConfig):
    """GRPO: every response has the same weight, whatever its length."""

    aggregation: Aggregation = "sequence_mean"
    """Mean over responses of the mean over their steps."""


class DrGRPOConfig(PolicyGradientConfig):
    """Dr. GRPO: every step has the same, constant weight."""

    aggregation: Aggregation = "constant"
    """Sum over steps, divided by responses x horizon."""
    horizon: int = Field(ge=1)
    """The generation budget in steps, e.g. that of `decoding.max_steps`."""


class DAPOConfig(PolicyGradientConfig):
    """DAPO: a higher upper limit and a mean over all steps of the batch."""

    clip_high: float = Field(default=0.28, ge=0)
    """How far the importance ratio may rise above 1 before a step gets zero gradient."""


class GSPOConfig(PolicyGradientConfig):
    """GSPO: one importance ratio a response, within narrow limits."""

    clip_low: float = Field(default=3e-4, ge=0, le=1)
    """How far the importance ratio may fall below 1 before a response gets zero gradient."""
    clip_high: float = Field(default=4e-4, ge=0)
    """How far the importance ratio may rise above 1 before a response gets zero gradient."""
    aggregation: Aggregation = "sequence_mean"
    """Mean over responses of the mean over their steps."""


class DenoisingClipConfig(GRPOConfig):
    """Clipped policy gradient on the steps of a sampler of diffusion or flow models."""

    clip_low: float = Field(default=1e-4, ge=0, le=1)
    """How far the importance ratio may fall below 1; made for log-probs that are means over the entries of a latent."""
    clip_high: float = Field(default=1e-4, ge=0)
    """How far the importance ratio may rise above 1; made for log-probs that are means over the entries of a latent."""


def policy_gradient_loss(
    policy_logps: Tensor,
    behaviour_logps: Tensor,
    advantages: Tensor,
    step_mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip_limit: float | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the clipped surrogate loss of every step with an importance ratio per step.

    Args:
        policy_logps: [N, T], nats.
        behaviour_logps: [N, T], nats, of the policy that sampled; no gradient.
        advantages: [N] or [N, T], no gradient.
        step_mask: [N, T] bool; other steps get loss 0.
        clip_low: how far the ratio may fall below 1, in [0, 1].
        clip_high: how far the ratio may rise above 1, at least 0.
        dual_clip_limit: see `dual_clip`; None for no such limit.

    Returns:
        losses [N, T], not reduced, and the detached metrics `ratio` and `clip_fraction` (0 or 1) [N, T].

    Source: arXiv:1707.06347, equation 7; arXiv:2402.03300, equation 3 without its KL term.
    """
    ratio = step_ratio(policy_logps, behaviour_logps, step_mask)
    return _clipped_loss(ratio, advantages, step_mask, (clip_low, clip_high), dual_clip_limit)


def sequence_policy_gradient_loss(
    policy_logps: Tensor,
    behaviour_logps: Tensor,
    advantages: Tensor,
    step_mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip_limit: float | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes the clipped surrogate loss with one importance ratio a response, which every step of it gets.

    Arguments and results are those of `policy_gradient_loss`.

    Source: arXiv:2507.18071, equations 5 and 7.
    """
    ratio = sequence_ratio(policy_logps, behaviour_logps, step_mask)
    return _clipped_loss(ratio, advantages, step_mask, (clip_low, clip_high), dual_clip_limit)


def _clipped_loss(
    ratio: Tensor, advantages: Tensor, step_mask: Tensor, clip: tuple[float, float], dual_clip_limit: float | None
) -> tuple[Tensor, dict[str, Tensor]]:
    per_step = advantages[:, None].expand_as(ratio) if advantages.dim() == 1 else advantages  # [N, T]
    check_shapes(2, ratio=ratio, advantages=per_step)
    per_step = torch.where(step_mask, per_step.detach(), 0)
    low, high = clip
    losses = clip_surrogate(ratio, per_step, clip_low=low, clip_high=high)
    if dual_clip_limit is not None:
        losses = dual_clip(losses, per_step, limit=dual_clip_limit)
    clipped = is_clipped(ratio.detach(), per_step, clip_low=low, clip_high=high)
    return losses, {"ratio": ratio.detach(), "clip_fraction": clipped.to(ratio.dtype)}
