"""Denoisers that can be worked out by hand, for the family `custom`."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from mmalign import DataError, Record
from mmalign_diffusion.families.custom import Denoiser
from mmalign_diffusion.schedules import Flow, VariancePreserving

LEVELS = torch.tensor([0.81, 0.64, 0.36])
"""a^2 of three levels: (a, b) = (0.9, 0.436), (0.8, 0.6), (0.6, 0.8)."""


class Linear(nn.Module):
    """Predicts the noise as weight x + goal, the goal being the condition."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, noisy: Tensor, timesteps: Tensor, goal: Tensor) -> Tensor:
        return self.weight * noisy + goal[:, None]


class PointMass(nn.Module):
    """The exact denoiser of data that are all equal to `point`: noise = (x - a point) / b."""

    def __init__(self, schedule: VariancePreserving, point: float) -> None:
        super().__init__()
        self.schedule = schedule
        self.point = nn.Parameter(torch.tensor(point))

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        a, b = self.schedule.coefficients(timesteps)
        return ((noisy - a[:, None] * self.point) / b[:, None]).float()


class Mixer(nn.Module):
    """A small perceptron on sequences of actions, told the level of noise and the goal."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.net = nn.Sequential(nn.Linear(4 * 2 + 2 + 1, 64), nn.SiLU(), nn.Linear(64, 4 * 2))

    def forward(self, noisy: Tensor, timesteps: Tensor, goal: Tensor) -> Tensor:
        level = timesteps.to(noisy)[:, None] / self.steps
        return self.net(torch.cat([noisy.flatten(1), goal, level], dim=1)).view_as(noisy)


def read_goal(record: Record) -> dict[str, Tensor]:
    try:
        return {"goal": torch.tensor(json.loads(record.prompt_text), dtype=torch.float32)}
    except ValueError:
        raise DataError(f"record {record.id!r}: expected the prompt to be a goal, e.g. [1, 2]") from None


def build(weight: float = 0.5) -> Denoiser:
    return Denoiser(
        Linear(weight), VariancePreserving(LEVELS), (2,), condition=read_goal, null={"goal": torch.tensor(0.0)}
    )


def build_point_mass(point: float = 0.7) -> Denoiser:
    schedule = VariancePreserving(torch.linspace(0.99, 0.01, 50, dtype=torch.float64))
    return Denoiser(PointMass(schedule, point), schedule, (3,))


def build_actions() -> Denoiser:
    """Sequences of four moves in the plane that should lead to a goal; a flow."""
    schedule = Flow(torch.arange(1, 101, dtype=torch.float64) / 100)
    return Denoiser(Mixer(100), schedule, (4, 2), prediction="flow", condition=read_goal, null={"goal": torch.zeros(2)})


def build_nothing() -> str:
    return "no denoiser"
