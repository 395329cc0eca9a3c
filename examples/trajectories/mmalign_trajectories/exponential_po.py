"""The exponential member of generalised preference optimisation."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from mmalign import Parameters


class ExponentialPoConfig(Parameters):
    """Parameters of the exponential preference loss."""

    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference."""


def exponential_po_loss(
    policy_chosen_sequence_logps: Tensor,
    policy_rejected_sequence_logps: Tensor,
    reference_chosen_sequence_logps: Tensor,
    reference_rejected_sequence_logps: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Computes exp(-beta * margin) of every pair.

    Args: log-probs of whole responses, [M], nats.

    Returns:
        losses [M], not reduced, and per-pair metrics.

    Source: arXiv:2402.05749, equation 3 with f(x) = exp(-x).
    """
    chosen = beta * (policy_chosen_sequence_logps - reference_chosen_sequence_logps)
    rejected = beta * (policy_rejected_sequence_logps - reference_rejected_sequence_logps)
    margin = chosen - rejected
    metrics = {"reward_margins": margin.detach(), "reward_accuracies": (margin.detach() > 0).float()}
    return torch.exp(-margin), metrics
