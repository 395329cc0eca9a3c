"""The modality: prompts name a start and a goal, responses are paths, a step is one move.

A prompt is the JSON text `{"start": [0, 0], "goal": [1, 2]}`, a response the JSON text of its points after the start.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors.torch import load_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmalign import (
    ConfigError,
    DataError,
    Decoding,
    EncodedResponse,
    Generated,
    Modality,
    Model,
    Parameters,
    Record,
    Response,
)
from mmalign_trajectories.policy import GaussianPolicy


class TrajectoryConfig(Parameters):
    """Parameters of the modality."""

    hidden: int = Field(default=32, ge=1)
    """Width of the policy's hidden layer."""
    std: float = Field(default=0.3, gt=0)
    """Standard deviation of a move at the start of training."""
    weights: str | None = None
    """A safetensors file to start from; null starts from random weights."""


class TrajectoryModality(Modality):
    """Paths of a Gaussian policy."""

    def __init__(self, hidden: int = 32, std: float = 0.3, weights: str | None = None) -> None:
        self.hidden = hidden
        self.std = std
        self.weights = weights

    def load(self, *, device: torch.device, dtype: torch.dtype) -> Model:
        """Builds the network; `dtype` is for larger ones, a density needs float32."""
        network = GaussianPolicy(self.hidden, self.std)
        if self.weights is not None:
            if not Path(self.weights).is_file():
                raise ConfigError(f"modality.weights: no such file {self.weights!r}")
            load_model(network, self.weights)
        return Model(network.to(device), name=self.weights or "random weights")

    def encode(self, record: Record) -> list[EncodedResponse]:
        """Turns every path into moves."""
        start, goal = _parse_prompt(record)
        return [_encode(start, goal, _parse_path(record, response)) for response in record.responses]

    def step_log_probs(self, network: nn.Module, responses: Sequence[EncodedResponse]) -> tuple[Tensor, Tensor]:
        """Scores every move of every path: logps and mask, [N, T]."""
        device = next(network.parameters()).device
        columns = [_pad(responses, name).to(device) for name in ("positions", "goals", "moves")]
        steps = torch.tensor([response.steps for response in responses], device=device)
        mask = torch.arange(columns[0].shape[1], device=device) < steps[:, None]
        return network.log_prob(*columns, temperature=self.temperature), mask  # type: ignore[operator]

    @torch.no_grad()
    def generate(
        self, network: nn.Module, records: Sequence[Record], decoding: Decoding, count: int
    ) -> list[list[Generated]]:
        """Walks `count` paths of `max_steps` moves for every prompt."""
        device = next(network.parameters()).device
        prompts = [_parse_prompt(record) for record in records for _ in range(count)]
        position = torch.stack([start for start, _ in prompts]).to(device)  # [N, 2]
        goals = torch.stack([goal for _, goal in prompts]).to(device)
        points, logps = [position], []
        for _ in range(decoding.max_steps):
            mean = network(points[-1], goals)
            move = mean + torch.randn_like(mean) * network.log_std.exp() * decoding.temperature  # type: ignore[operator,union-attr]
            logps.append(network.log_prob(points[-1], goals, move, decoding.temperature))  # type: ignore[operator]
            points.append(points[-1] + move)
        paths, scores = torch.stack(points, dim=1).cpu(), torch.stack(logps, dim=1).cpu()  # [N, T + 1, 2], [N, T]
        generated = [
            _generated(path, goal, own) for path, (_, goal), own in zip(paths, prompts, scores, strict=True)
        ]
        return [generated[i : i + count] for i in range(0, len(generated), count)]

    def decode(self, response: Response) -> Any:
        """Returns the points of a path, a list of [x, y]."""
        return json.loads(response.text)


def _generated(path: Tensor, goal: Tensor, logps: Tensor) -> Generated:
    text = json.dumps([[round(value, 5) for value in point] for point in path[1:].tolist()])
    return Generated(Response.from_text("r0", text), _encode(path[0], goal, path[1:]), logps)


def _encode(start: Tensor, goal: Tensor, points: Tensor) -> EncodedResponse:
    visited = torch.cat([start[None], points])  # [T + 1, 2]
    tensors = {"positions": visited[:-1], "moves": visited.diff(dim=0), "goals": goal.expand(len(points), 2)}
    return EncodedResponse(tensors, steps=len(points), size=len(points))


def _pad(responses: Sequence[EncodedResponse], name: str) -> Tensor:
    return pad_sequence([response.tensors[name] for response in responses], batch_first=True)  # [N, T, 2]


def _parse_prompt(record: Record) -> tuple[Tensor, Tensor]:
    try:
        prompt = json.loads(record.prompt_text)
        return torch.tensor(prompt["start"]).float().reshape(2), torch.tensor(prompt["goal"]).float().reshape(2)
    except (ValueError, KeyError, TypeError, RuntimeError):
        example = '{"start": [0, 0], "goal": [1, 2]}'
        raise DataError(f"record {record.id!r}: prompt: expected JSON such as {example}") from None


def _parse_path(record: Record, response: Response) -> Tensor:
    try:
        return torch.tensor(json.loads(response.text)).float().reshape(-1, 2)
    except (ValueError, TypeError, RuntimeError):
        where = f"record {record.id!r}: response {response.rid!r}"
        raise DataError(f"{where}: expected a JSON list of points such as [[0.1, 0.2], [0.3, 0.1]]") from None
