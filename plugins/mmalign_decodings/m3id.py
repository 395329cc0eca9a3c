"""M3ID: scores of next steps with what an image, or any other condition, adds to them restored.

A condition is forgotten as a response grows: the model's log-probs are taken for a mixture of those with undecayed
condition and those without it, and are solved for the former where the model is unsure. This is the rule alone: it
takes the next-step distribution with and without the condition, so two forward passes a step.
"""

from __future__ import annotations

from math import expm1, log

import torch
from torch import Tensor

MAX_EXPONENT = 50.0
"""Decay times step is cut here: the difference then outweighs everything else in a float64, and nothing overflows."""


def m3id_scores(
    conditional_logps: Tensor, unconditional_logps: Tensor, *, step: int, decay: float, confidence: float
) -> Tensor:
    """Computes the scores of all candidates for the next step, to take the best of or to sample from.

    Args:
        conditional_logps: [..., V], nats, log-probs of the next step given the condition.
        unconditional_logps: [..., V], nats, given the same prefix without the condition; finite.
        step: index of the next step, 0 for the first of the response.
        decay: rate per step at which the condition is forgotten, at least 0; its share is exp(-decay step).
        confidence: the likeliest candidate has at least this probability where the model is sure, so that nothing is
            changed; in (0, 1].

    Returns:
        scores [..., V], not normalised; -inf where the conditional log-prob is.

    Raises:
        ValueError: the shapes differ.

    Source: arXiv:2403.14003, the estimate of the undecayed log-probs.
    """
    if conditional_logps.shape != unconditional_logps.shape:
        expected, got = tuple(conditional_logps.shape), tuple(unconditional_logps.shape)
        raise ValueError(f"unconditional_logps: expected the shape {expected}, got {got}")
    difference = torch.where(conditional_logps.isneginf(), 0, conditional_logps - unconditional_logps)
    corrected = conditional_logps + expm1(min(decay * step, MAX_EXPONENT)) * difference
    return torch.where(is_unsure(conditional_logps, confidence)[..., None], corrected, conditional_logps)


def is_unsure(logps: Tensor, confidence: float) -> Tensor:
    """Marks the distributions [..., V] in which no candidate has probability `confidence`: [...] bool."""
    return logps.amax(dim=-1) < log(confidence)
