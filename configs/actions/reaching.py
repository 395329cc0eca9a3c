"""A toy of goal-conditioned action policies: a denoiser of sequences of moves that reach a goal. A plugin file.

    python configs/actions/reaching.py       writes the data
    mmalign train configs/actions/imitate.yaml
    mmalign train configs/actions/prefer.yaml

A response is eight moves in the plane as JSON, the prompt one of two goals, [-1, 0] or [1, 0]. Demonstrations go there
above or below a straight line, one as often as the other; preferences are for above.

Source of the method: BESO (arXiv:2304.02532). Differs: a perceptron in place of a GPT, no observations, whole goals are
dropped, no moving average of weights, the largest sigma is 3 and not 1, from where more paths reach their goal, and
sampling starts at the variance that data with noise have.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmalign import DataError, Record, Response, Reward, RewardSpec, Sample, hookimpl
from mmalign_diffusion.families.custom import Denoiser
from mmalign_diffusion.karras import karras_schedule, log_logistic_sigmas

MOVES = 8
MOVE_STD = 0.15
"""Deviation of a coordinate of a move in the demonstrations."""
LEVELS = 100


@hookimpl
def register_rewards() -> list[RewardSpec]:
    """Announces what is measured of a path."""
    return [
        RewardSpec(name="reached", summary="1 where the path ends near the goal.", target="reaching:Reached"),
        RewardSpec(name="above", summary="1 where the path goes above the straight line.", target="reaching:Above"),
    ]


class Reached(Reward):
    """1 where the last position is within 0.3 of the goal, else 0."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Scores paths."""
        ends = [positions(sample.output)[-1] for sample in samples]
        goals = [read_goal(sample.record)["goal"] for sample in samples]
        return [float((end - goal).norm() < 0.3) for end, goal in zip(ends, goals, strict=True)]


class Above(Reward):
    """1 where the mean height of the positions is above 0, else 0."""

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Scores paths."""
        return [float(positions(sample.output)[:, 1].mean() > 0) for sample in samples]


def positions(moves: Any) -> Tensor:
    """Adds moves up: [8, 2]."""
    return torch.tensor(moves).cumsum(0)


# -- the denoiser


class Policy(nn.Module):
    """A perceptron that is told the level of noise as log(sigma) / 4, and the goal."""

    def __init__(self, sigmas: Tensor, width: int = 256) -> None:
        super().__init__()
        self.register_buffer("levels", (sigmas.log() / 4).float())
        self.net = nn.Sequential(
            nn.Linear(MOVES * 2 + 3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, MOVES * 2)
        )

    def forward(self, noisy: Tensor, timesteps: Tensor, goal: Tensor) -> Tensor:
        """Predicts [B, 8, 2] from noisy moves, timesteps [B] and goals [B, 2]."""
        level = self.get_buffer("levels")[timesteps][:, None].to(noisy)
        output: Tensor = self.net(torch.cat([noisy.flatten(1), goal.to(noisy), level], dim=1))
        return output.view_as(noisy)


def build(width: int = 256, data_std: float = 0.5, high: float = 3.0) -> Denoiser:
    """Makes the denoiser; sigma is in units in which moves have the deviation `data_std`."""
    sigmas = log_logistic_sigmas(LEVELS, low=0.005, high=high, median=data_std, scale=0.5)
    return Denoiser(
        network=Policy(sigmas, width),
        schedule=karras_schedule(sigmas, data_std=data_std),
        shape=(MOVES, 2),
        prediction="v_prediction",
        condition=read_goal,
        null={"goal": torch.zeros(2)},
        read=read_moves,
        write=write_moves,
    )


def read_goal(record: Record) -> dict[str, Tensor]:
    """Reads the goal [2] from the prompt."""
    try:
        goal = torch.tensor(json.loads(record.prompt_text), dtype=torch.float32)
    except (ValueError, TypeError):
        goal = torch.zeros(0)
    if goal.shape != (2,):
        raise DataError(f"record {record.id!r}: expected the prompt to be a goal, e.g. [1, 0]")
    return {"goal": goal}


def read_moves(record: Record, response: Response) -> Tensor:
    """Reads moves [8, 2] in units of their deviation."""
    try:
        return torch.tensor(json.loads(response.text), dtype=torch.float32) / MOVE_STD
    except (ValueError, TypeError):
        raise DataError(f"record {record.id!r}, response {response.rid!r}: expected moves, e.g. [[0.1, 0.2]]") from None


def write_moves(latents: Tensor) -> tuple[Response, Any]:
    """Writes moves as JSON; rewards see the list."""
    moves = (latents.float() * MOVE_STD).tolist()
    return Response.from_text("r0", json.dumps(moves)), moves


# -- the data


def demonstrate(goal: float, side: float, generator: torch.Generator) -> list[list[float]]:
    """Makes moves to (goal, 0) on an arc of height 0.5 on one side."""
    path = [(goal * k / MOVES, side * 0.5 * math.sin(math.pi * k / MOVES)) for k in range(MOVES + 1)]
    moves = torch.tensor(path).diff(dim=0)
    rounded: list[list[float]] = (moves + 0.02 * torch.randn(MOVES, 2, generator=generator)).tolist()
    return rounded


def write_data(folder: Path, count: int = 256) -> None:
    """Writes demonstrations, pairs in which the way above is preferred."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    demonstrations, pairs = [], []
    for index in range(count):
        goal = [1.0, -1.0][index % 2]
        above, below = (json.dumps(demonstrate(goal, side, generator)) for side in (1.0, -1.0))
        prompt = json.dumps([goal, 0.0])
        one = above if index // 2 % 2 else below
        demonstrations.append(Record.from_text(prompt, [one], id=f"d{index}").to_dict())
        label = {"kind": "pair", "order": [["r0"], ["r1"]]}
        pairs.append({**Record.from_text(prompt, [above, below], id=f"p{index}").to_dict(), "labels": [label]})
    for name, rows in (("demonstrations", demonstrations), ("pairs", pairs)):
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    write_data(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/reaching-data"))
