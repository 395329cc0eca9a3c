"""Odds of a response from its mean log-prob, in logarithms throughout."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor


def log_odds(mean_logps: Tensor) -> Tensor:
    """Computes log(p / (1 - p)) for p = exp(mean_logps), any shape.

    A response of probability 1 has infinite odds; its log-prob is taken as one rounding error below 0, which bounds the
    result (16 in float32) and gives it no gradient.
    """
    below_zero = mean_logps.clamp(max=-torch.finfo(mean_logps.dtype).eps)
    return below_zero - _log1mexp(below_zero)


def _log1mexp(values: Tensor) -> Tensor:
    # Neither form of log(1 - exp(u)) is exact everywhere. Each sees only the values it is good for: the branch that
    # `where` drops would still send NaN (0 * inf) back if it overflowed.
    near_zero = values > -log(2)
    near = torch.log(-torch.expm1(torch.where(near_zero, values, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(near_zero, -1.0, values)))
    return torch.where(near_zero, near, far)
