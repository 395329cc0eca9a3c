"""Pairs on which losses are tried: rows of (policy chosen, policy rejected, reference chosen, reference rejected)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PAIRS = torch.tensor(
    [[-10.0, -12.0, -11.0, -11.0], [-5.0, -3.0, -4.5, -6.0], [-7.0, -7.0, -8.0, -6.5]], dtype=torch.float64
)
AT_THE_REFERENCE = PAIRS[:, [0, 1, 0, 1]]


def log_ratios(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Those of the chosen and of the rejected responses; for PAIRS 1, -0.5, 1 and -1, 3, -0.5."""
    return pairs[:, 0] - pairs[:, 2], pairs[:, 1] - pairs[:, 3]


def margins(pairs: Tensor) -> Tensor:
    """Of the log-ratios; for PAIRS 2, -3.5, 1.5."""
    chosen, rejected = log_ratios(pairs)
    return chosen - rejected


def gradient_of(loss: Callable[[Tensor], Tensor], pairs: Tensor) -> Tensor:
    """The gradient of the summed losses of `pairs`, in their shape."""
    leaf = pairs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
    return gradient
