"""Clipped surrogates: how far one update may move the probability of a step. All are per step: [N, T] to [N, T]."""

from __future__ import annotations

import torch
from torch import Tensor


def clip_surrogate(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """Computes the pessimistic surrogate loss of every step.

    Its gradient is 0 where the ratio has left [1 - clip_low, 1 + clip_high] in the direction that the advantage pulls.

    Args:
        ratio: [N, T], importance ratios.
        advantages: [N, T], no gradient.
        clip_low: how far the ratio may fall below 1, in [0, 1].
        clip_high: how far it may rise above 1, at least 0.

    Source: arXiv:1707.06347, equation 7; two limits from arXiv:2503.14476, equation 10.
    """
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def dual_clip(losses: Tensor, advantages: Tensor, *, limit: float) -> Tensor:
    """Bounds the surrogate loss of steps with negative advantage by `-limit * advantages`.

    Without it a step that the policy has made much likelier than the sampler did has an unbounded loss.

    Args:
        losses: [N, T], from `clip_surrogate`.
        advantages: [N, T], no gradient.
        limit: ratio from which on such a step has no gradient, above 1.

    Source: arXiv:1912.09729, equation 5.
    """
    return torch.where(advantages < 0, torch.minimum(losses, -limit * advantages), losses)


def is_clipped(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """Marks the steps [N, T] whose gradient `clip_surrogate` cuts off: bool."""
    return ((ratio < 1 - clip_low) & (advantages < 0)) | ((ratio > 1 + clip_high) & (advantages > 0))
