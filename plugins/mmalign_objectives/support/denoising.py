"""Denoising errors, read out of the log-probs of diffusion models.

There the log-prob of a denoising step is minus half the weighted mean squared error of the network's prediction: the
log-density of its target under a Gaussian of unit variance around the prediction, per entry and up to a constant. A
response that is scored at several timesteps has the mean over them as the sum of its steps.
"""

from __future__ import annotations

from torch import Tensor


def denoising_errors(sequence_logps: Tensor) -> Tensor:
    """Computes the mean squared denoising error of every response from its surrogate log-prob, any shape."""
    return -2 * sequence_logps
