"""Masked reductions, and the weights that turn step losses into one number.

A padded step may hold anything, NaN and infinity included, and must reach neither a value nor a gradient. Multiplying
by the mask does not do that (0 * NaN is NaN, in the backward pass, too); `torch.where` before the arithmetic does.

Shapes: N responses, T steps; masks are bool, True = counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign.errors import ConfigError, suggest

AGGREGATIONS = ("step_mean", "sequence_mean", "sequence_sum", "constant")
"""Ways to reduce step losses; see `aggregation_weights`."""


def step_mask(lengths: Tensor, steps: int) -> Tensor:
    """Marks the first `lengths` [N] of `steps` = T steps: [N, T] bool."""
    _check_rank("lengths", lengths, 1)
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sums values [N, T] over the steps that count: [N]; 0 where none does.

    >>> masked_sum(torch.tensor([[1.0, 2.0, float("nan")]]), torch.tensor([[True, True, False]]))
    tensor([3.])
    """
    _check_mask(values, mask)
    return torch.where(mask, values, 0).sum(dim=1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Averages values [N, T] over the steps that count: [N]; 0 where none does."""
    return masked_sum(values, mask) / mask.sum(dim=1).clamp(min=1)


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """Sums `values * weights`, any equal shapes, over everything: a scalar.

    An element of weight 0 counts neither in the value nor in the gradient, whatever it holds.
    """
    if values.shape != weights.shape:
        raise ValueError(f"weights: expected the shape of the values {tuple(values.shape)}, got {tuple(weights.shape)}")
    return (torch.where(weights != 0, values, 0) * weights).sum()


def aggregation_weights(
    name: str, mask: Tensor, *, total_steps: Tensor, total_responses: Tensor, horizon: float | None = None
) -> Tensor:
    """Computes the weight of every step loss.

    With the totals of the global batch, `weighted_sum(losses, weights)` added up over all micro-batches of all
    processes is the aggregate of the global batch, however it is cut. For losses l, mask m, N responses in all:

    - `step_mean`: sum(l m) / sum(m);
    - `sequence_mean`: the mean over responses of sum_t(l m) / sum_t(m);
    - `sequence_sum`: the mean over responses of sum_t(l m);
    - `constant`: sum(l m) / (N horizon).

    Args:
        name: one of `AGGREGATIONS`.
        mask: [N, T] bool, of this micro-batch.
        total_steps: scalar, steps that count in the global batch, at least 1.
        total_responses: scalar, responses that count in the global batch, at least 1.
        horizon: steps that `constant` divides by, usually the largest number of steps that can be sampled.

    Returns:
        [N, T], in the dtype of the totals; 0 where the mask is False.

    Raises:
        ConfigError: an unknown name, or `constant` without a positive horizon.
    """
    _check_rank("mask", mask, 2)
    counted = mask.to(total_responses.dtype)  # [N, T]
    if name == "step_mean":
        return counted / total_steps
    if name == "sequence_mean":
        return counted / (mask.sum(dim=1, keepdim=True).clamp(min=1) * total_responses)
    if name == "sequence_sum":
        return counted / total_responses
    if name == "constant":
        return counted / (total_responses * _check_horizon(horizon))
    raise ConfigError(f"aggregation: unknown {name!r}{suggest(name, AGGREGATIONS)}")


def _check_horizon(horizon: float | None) -> float:
    if horizon is None or not horizon > 0:
        expected = "expected a positive number of steps, e.g. decoding.max_steps"
        raise ConfigError(f"horizon: got {horizon}; aggregation 'constant' divides by it: {expected}")
    return horizon


def _check_mask(values: Tensor, mask: Tensor) -> None:
    _check_rank("values", values, 2)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected bool, got {mask.dtype}")
    if mask.shape != values.shape:
        raise ValueError(f"mask: expected the shape of the values {tuple(values.shape)}, got {tuple(mask.shape)}")


def _check_rank(name: str, tensor: Tensor, rank: int) -> None:
    if tensor.dim() != rank:
        raise ValueError(f"{name}: expected {rank} dimension(s), got shape {tuple(tensor.shape)}")
