"""The modality: a response is a path in the plane, a step is one move, its log-prob the log-density of a Gaussian.

Shapes: N responses, T moves of the longest; the last axis of a point or a move is (x, y).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmalign import ConfigError, Decoding, EncodedResponse, Generated, Modality, Model, Parameters, Record, Response
from mmalign_trajectories.paths import Point, parse_path, parse_task
from mmalign_trajectories.policy import GaussianPolicy


class TrajectoryConfig(Parameters):
    """Parameters of the modality."""

    hidden: int = Field(default=32, ge=1)
    """Width of the policy's hidden layer."""
    std: float = Field(default=0.3, gt=0)
    """Standard deviation of a move at the start of training."""
    weights: str | None = None
    """A safetensors file to start from, e.g. `model/model.safetensors` of a run; null starts from random weights."""


class TrajectoryModality(Modality):
    """Paths of a Gaussian policy."""

    def __init__(self, hidden: int, std: float, weights: str | None) -> None:
        self.hidden = hidden
        self.std = std
        self.weights = weights

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        """Builds the network, always in float32: `dtype` is for networks that are too large for it."""
        network = GaussianPolicy(self.hidden, self.std)
        if self.weights is not None:
            _load_weights(network, self.weights)
        return Model(network.to(device), name=self.weights or "random weights")

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Turns every path into moves."""
        task = parse_task(record)
        start, goal = torch.tensor(task.start), torch.tensor(task.goal)
        paths = [torch.tensor(parse_path(record, response)) for response in record.responses]
        return [_encode(torch.cat([start[None], path]), goal) for path in paths]

    def step_log_probs(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
        """Scores every move of every path: logps in nats and mask, [N, T]."""
        policy = cast(GaussianPolicy, network)
        device = policy.log_std.device
        positions, goals, moves = (_pad(responses, name).to(device) for name in ("positions", "goals", "moves"))
        logps = policy(positions, goals, self.temperature).log_prob(moves).sum(dim=-1)
        steps = torch.tensor([response.steps for response in responses], device=device)
        return logps, torch.arange(logps.shape[1], device=device) < steps[:, None]

    @torch.no_grad()
    def generate(
        self, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Walks `count` paths of `max_steps` moves for every prompt."""
        policy = cast(GaussianPolicy, network)
        tasks = [task for task in map(parse_task, records) for _ in range(count)]
        goals = torch.tensor([task.goal for task in tasks], device=policy.log_std.device)  # [N, 2]
        points, logps = [goals.new_tensor([task.start for task in tasks])], []
        for _ in range(decoding.max_steps):
            distribution = policy(points[-1], goals, decoding.temperature)
            move = distribution.sample()
            logps.append(distribution.log_prob(move).sum(dim=-1))
            points.append(points[-1] + move)
        rows = zip(torch.stack(points, dim=1).cpu(), goals.cpu(), torch.stack(logps, dim=1).cpu(), strict=True)
        generated = [_to_generated(visited, goal, own) for visited, goal, own in rows]
        return [generated[first : first + count] for first in range(0, len(generated), count)]

    def decode(self, record: Record, response: Response) -> list[Point]:
        """Returns the points of a path."""
        points: list[Point] = json.loads(response.text)
        return points

    def parameter_counts(self) -> tuple[int, int]:
        """Counts the weights; all of them are trained."""
        with torch.device("meta"):
            network = GaussianPolicy(self.hidden, self.std)
        total = sum(parameter.numel() for parameter in network.parameters())
        return total, total


def _load_weights(network: nn.Module, file: str) -> None:
    if not Path(file).is_file():
        raise ConfigError(f"modality.weights: no such file {file!r}")
    try:
        load_model(network, file)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"modality.weights: {file!r} does not fit this network; is `hidden` right? {reason}"
        ) from None


def _to_generated(visited: Tensor, goal: Tensor, logps: Tensor) -> Generated:
    # The text is rounded for people; what is trained on are the very moves that were sampled.
    text = json.dumps([[round(value, 5) for value in point] for point in visited[1:].tolist()])
    return Generated(Response.from_text("r0", text), _encode(visited, goal), logps)


def _encode(visited: Tensor, goal: Tensor) -> EncodedResponse:
    """Encodes a path with its start [T + 1, 2]."""
    moves = visited.diff(dim=0)
    tensors = {"positions": visited[:-1], "moves": moves, "goals": goal.expand_as(moves)}
    return EncodedResponse(tensors, steps=len(moves), size=len(moves))


def _pad(responses: Sequence[EncodedResponse], name: str) -> Tensor:
    return pad_sequence([response.tensors[name] for response in responses], batch_first=True)  # [N, T, 2]
