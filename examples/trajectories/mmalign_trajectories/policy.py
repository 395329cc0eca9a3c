"""The network: a small perceptron that proposes the mean of the next move."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class GaussianPolicy(nn.Module):
    """Moves are Gaussian around `forward(positions, goals)`, with one learnt standard deviation.

    Args:
        hidden: width of the hidden layer.
        std: standard deviation of a move at the start.
    """

    def __init__(self, hidden: int, std: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 2))
        self.log_std = nn.Parameter(torch.tensor(math.log(std)))

    def forward(self, positions: Tensor, goals: Tensor) -> Tensor:
        """Computes the mean of the next move: [..., 2] and [..., 2] to [..., 2]."""
        mean: Tensor = self.body(torch.cat([positions, goals], dim=-1))
        return mean

    def log_prob(self, positions: Tensor, goals: Tensor, moves: Tensor, temperature: float) -> Tensor:
        """Computes the log-density of moves [..., 2] in nats: [...]."""
        std = self.log_std.exp() * temperature
        normal = torch.distributions.Normal(self(positions, goals), std)
        return normal.log_prob(moves).sum(dim=-1)
