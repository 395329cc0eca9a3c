"""Noise levels and preconditioning of Karras et al., and what they are in terms of x_t = a x0 + b noise.

There, data x of deviation s_d get noise, y = x + sigma noise, and the denoiser is D(y) = c_skip y + c_out F(c_in y).
With a = s_d / r and b = sigma / r, r = (sigma^2 + s_d^2)^(1/2), so that a^2 + b^2 = 1:

    c_in y = a x / s_d + b noise                    the noisy latent of the data in units of their deviation
    (x - c_skip y) / c_out = -(a noise - b x / s_d)     minus what a network of kind `v_prediction` predicts

So such a model is one on the schedule below that is given data over s_d and predicts -F as `v_prediction`; its loss
mean |F - target|^2 is the unweighted denoising error, and its deterministic sampler is DDIM.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign_diffusion.schedules import VariancePreserving


def preconditioning(sigmas: Tensor, *, data_std: float) -> tuple[Tensor, Tensor, Tensor]:
    """Computes (c_skip, c_out, c_in) of noise levels.

    Args:
        sigmas: deviations of the noise, any shape, not negative.
        data_std: s_d, positive.

    Source: arXiv:2206.00364.
    """
    total = sigmas**2 + data_std**2
    return data_std**2 / total, sigmas * data_std / total.sqrt(), 1 / total.sqrt()


def karras_schedule(sigmas: Tensor, *, data_std: float) -> VariancePreserving:
    """Builds the schedule on which a preconditioned model is one that predicts `v_prediction`.

    Args:
        sigmas: [T], rising, positive; float64 for full precision.
        data_std: deviation of the data; the model is given them divided by it.
    """
    return VariancePreserving(data_std**2 / (sigmas.double() ** 2 + data_std**2))


def log_logistic_sigmas(count: int, *, low: float, high: float, median: float, scale: float) -> Tensor:
    """Computes the midpoint quantiles of a truncated log-logistic distribution: [count] float64, rising.

    A timestep that is drawn uniformly is then a level that is drawn from that distribution.

    Args:
        count: T.
        low: smallest level, positive.
        high: largest level.
        median: of the distribution before it is cut off; BESO takes the deviation of the data.
        scale: of the logistic distribution of log sigma.

    Source: BESO (arXiv:2304.02532), with 0.005, 1 and 0.5 as bounds and scale.
    """
    bounds = (torch.tensor([low, high], dtype=torch.float64).log() - torch.tensor(median).double().log()) / scale
    first, last = bounds.sigmoid()
    shares = first + (last - first) * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    levels: Tensor = median * (scale * shares.logit()).exp()
    return levels
