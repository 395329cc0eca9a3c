"""How much the denoising error of a noise level counts.

A weight is defined on the squared error of x0, and divided by how much larger the squared error of what the network
predicts is: a scheme other than `constant` means the same whatever the network predicts.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmalign import ConfigError
from mmalign_diffusion.parametrisation import Prediction, squared_error_factor
from mmalign_diffusion.schedules import Schedule

Weighting = Literal["constant", "snr", "min_snr", "elbo"]


def step_weights(
    timesteps: Tensor, schedule: Schedule, prediction: Prediction, *, weighting: Weighting, gamma: float
) -> Tensor:
    """Computes the weight of the squared error of a network's prediction.

    Args:
        timesteps: int64 of any shape, at least 0.
        schedule: of the noise.
        prediction: what the network predicts.
        weighting: `constant`: 1. `snr`: SNR for x0, so 1 for the noise. `min_snr`: SNR, but at most gamma, for x0.
            `elbo`: T (SNR(t - 1) - SNR(t)) for x0, half of which, times the summed squared error, is the term of the
            variational bound if timesteps are uniform; 0 at t = 0, whose term is not an error of this kind.
        gamma: the bound of `min_snr`, positive.

    Returns:
        float64, of the shape of `timesteps`.

    Raises:
        ConfigError: the weight is not finite at some level.

    Source: min-SNR arXiv:2303.09556; bound arXiv:2107.00630.
    """
    a, b = schedule.coefficients(timesteps)
    if weighting == "constant":
        return torch.ones_like(a)
    snr = schedule.snr(timesteps)
    factor = squared_error_factor(prediction, a, b)
    if weighting == "elbo":
        less_noise = schedule.snr((timesteps - 1).clamp(min=0))
        weights = schedule.steps * (less_noise - snr) / factor
    else:
        bounded = snr.clamp(max=gamma) if weighting == "min_snr" else snr
        # At SNR 0 both are 0 for a network that predicts the noise; towards it the quotient is 1.
        weights = torch.where((snr == 0) & (factor == 0), torch.ones_like(snr), bounded / factor)
    if not bool(weights.isfinite().all()):
        level = timesteps.flatten()[~weights.flatten().isfinite()][0]
        raise ConfigError(
            f"modality.weight: {weighting!r} of a network that predicts {prediction!r} is not finite at timestep "
            f"{int(level)}, where the signal-to-noise ratio is {float(schedule.snr(level)):g}; take another weight, or "
            "timesteps without it"
        )
    return weights
