"""Importance ratios between the policy and the one that sampled, per step or per response."""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign import masked_mean
from mmalign_objectives.support.shapes import check_shapes

MAX_LOG_RATIO = 20.0
"""Log-ratios are cut here: exp(20) still is a float32 whose square is one, and no useful step gets near it."""


def step_ratio(policy_logps: Tensor, behaviour_logps: Tensor, step_mask: Tensor) -> Tensor:
    """Computes an importance ratio for every step; padding gets ratio 1 and no gradient.

    Args:
        policy_logps: [N, T], nats.
        behaviour_logps: [N, T], nats, no gradient.
        step_mask: [N, T] bool.

    Returns:
        [N, T].
    """
    return _exponentiate(_log_ratio(policy_logps, behaviour_logps, step_mask))


def sequence_ratio(policy_logps: Tensor, behaviour_logps: Tensor, step_mask: Tensor) -> Tensor:
    """Computes one importance ratio a response, the geometric mean over its steps, and gives it to each of them.

    Arguments and result are those of `step_ratio`.

    Source: arXiv:2507.18071, equation 7.
    """
    mean = masked_mean(_log_ratio(policy_logps, behaviour_logps, step_mask), step_mask)  # [N]
    return _exponentiate(torch.where(step_mask, mean[:, None], 0))


def _log_ratio(policy_logps: Tensor, behaviour_logps: Tensor, step_mask: Tensor) -> Tensor:
    check_shapes(2, policy_logps=policy_logps, behaviour_logps=behaviour_logps, step_mask=step_mask)
    return torch.where(step_mask, policy_logps - behaviour_logps.detach(), 0)


def _exponentiate(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
