"""Clipped policy gradient, and the methods that are settings of it.

Importance ratio (`ratio`), clipping (`clipping`), aggregation (the engine) and KL (`kl_penalty`, an objective of its
own that is added to this one) are separate pieces; GRPO, Dr. GRPO, DAPO and GSPO choose among them, and so do DDPO,
Flow-GRPO and DanceGRPO, whose steps are those of a sampler.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mmalign_objectives.aggregation import Aggregation, StepParameters
from mmalign_objectives.clipping import clip_surrogate, dual_clip, is_clipped
from mmalign_objectives.ratio import sequence_ratio, step_ratio
from mmalign_objectives.shapes import check_shapes


class PolicyGradientConfig(StepParameters):
    """Clipped policy gradient (PPO)."""

    clip_low: float = Field(default=0.2, ge=0, le=1)
    """How far the importance ratio may fall below 1 before a step stops teaching."""
    clip_high: float = Field(default=0.2, ge=0)
    """How far the importance ratio may rise above 1 before a step stops teaching."""
    dual_clip_limit: float | None = Field(default=None, gt=1)
    """Ratio from which on a step with negative advantage stops teaching, e.g. 3; none by default."""


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
    """How far the importance ratio may rise above 1 before a step stops teaching."""


class GSPOConfig(PolicyGradientConfig):
    """GSPO: one importance ratio a response, within narrow limits."""

    clip_low: float = Field(default=3e-4, ge=0, le=1)
    """How far the importance ratio may fall below 1 before a response stops teaching."""
    clip_high: float = Field(default=4e-4, ge=0)
    """How far the importance ratio may rise above 1 before a response stops teaching."""
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
