"""One step of the stochastic differential equation that has the marginals of a flow's ordinary one, as a Gaussian.

The flow dx = u dsigma moves without noise, so that a step has no density. The equation
dx = (u - g^2 score / 2) dsigma + g dw has the same marginals for every g, and its Euler step is Gaussian.
Its log-prob and KL are `gaussian_log_prob` and `gaussian_kl` of `ddim`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmalign_diffusion.parametrisation import align, widen


def flow_sde_step(
    x: Tensor, velocity: Tensor, sigmas: Tensor, next_sigmas: Tensor, diffusion: Tensor
) -> tuple[Tensor, Tensor]:
    """Computes the distribution of the latents at the next level.

    Args:
        x: [B, ...], latents at `sigmas`.
        velocity: [B, ...], what the network predicts in them, noise - x0.
        sigmas: [B], noise levels above 0.
        next_sigmas: [B], lower ones. At 0 latents still get noise; a sampler decodes x0 = x - sigma velocity instead.
        diffusion: [B], g. 0 gives the Euler step of the ordinary equation, a constant the step of DanceGRPO.

    Returns:
        mean [B, ...] and standard deviation [B], float64.

    Raises:
        ValueError: levels that do not fall, or shapes that do not fit.

    Source: arXiv:2505.05470 and arXiv:2505.07818.
    """
    sigmas, next_sigmas, diffusion = sigmas.double(), next_sigmas.double(), diffusion.double()
    if not bool(((sigmas > next_sigmas) & (next_sigmas >= 0)).all()):
        raise ValueError("sigmas: expected next_sigmas below them, and at least 0")
    step = next_sigmas - sigmas
    # The score of the marginal is -(x + (1 - sigma) u) / sigma; this is half g^2 of it, without the bracket.
    pull = diffusion**2 / (2 * sigmas)
    x, velocity = widen(x), velocity.to(widen(x).dtype)
    mean = align(1 + pull * step, x) * x + align((1 + pull * (1 - sigmas)) * step, x) * velocity
    return mean, diffusion * (-step).sqrt()


def flow_grpo_diffusion(sigmas: Tensor, *, noise_level: float, first_sigma: float) -> Tensor:
    """Computes g of Flow-GRPO: noise_level sqrt(sigma / (1 - sigma)), which would be infinite at sigma = 1.

    Args:
        sigmas: [B], in [0, 1].
        noise_level: factor, 0.7 in the paper's recipes.
        first_sigma: the sampler's second level, below 1, which stands in for sigma = 1 in 1 - sigma.

    Returns:
        [B], float64.
    """
    sigmas = sigmas.double()
    return noise_level * (sigmas / (1 - torch.where(sigmas == 1, first_sigma, sigmas))).sqrt()
