"""The network: a small perceptron that proposes the mean of the next move."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal


class GaussianPolicy(nn.Module):
    """Moves are Gaussian around a computed mean, with one learnt standard deviation.

    Args:
        hidden: width of the hidden layer.
        std: standard deviation of each coordinate of a move at the start.
    """

    def __init__(self, hidden: int, std: float) -> None:
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        self.log_std = nn.Parameter(torch.tensor(math.log(std)))

    def forward(self, positions: Tensor, goals: Tensor, temperature: float = 1.0) -> Normal:
        """Computes the distribution of the next move.

        Args:
            positions: [..., 2].
            goals: [..., 2].
            temperature: multiplies the standard deviation, positive.

        Returns:
            two independent Gaussians, batch shape [..., 2].
        """
        mean = self.mean(torch.cat([positions, goals], dim=-1))
        # Unvalidated: it is the engine that stops a run whose numbers are no longer finite, and says why.
        return Normal(mean, self.log_std.exp() * temperature, validate_args=False)
