"""The optimiser and its learning rate, as functions of the step: nothing here has state beside the moments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mmalign.config.sections import TrainConfig
from mmalign.networks.policy import Policy

_FACTOR = "learning_rate_factor"
"""Key of a parameter group: its learning rate is this times that of the network."""


def build_optimiser(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Builds the optimiser over the trainable parameters; weight decay acts on matrices only.

    Parameters of the heads of a policy have groups of their own if they have a learning rate of their own.
    """
    heads: set[int] = set()
    if isinstance(module, Policy) and config.head_learning_rate is not None:
        heads = {id(parameter) for parameter in module.heads.parameters()}
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        *_by_decay([p for p in trainable if id(p) not in heads], config.weight_decay, 1.0),
        *_by_decay([p for p in trainable if id(p) in heads], config.weight_decay, _head_factor(config)),
    ]
    if config.optimiser == "adafactor":
        return _build_adafactor(groups, config.learning_rate)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.adam_betas)


def _build_adafactor(groups: list[dict[str, Any]], rate: float) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    # PyTorch's own scales the rate by the size of the weights, which published recipes switch off.
    optimiser: torch.optim.Optimizer = Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
    return optimiser


def _by_decay(parameters: Sequence[nn.Parameter], weight_decay: float, factor: float) -> list[dict[str, Any]]:
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay, _FACTOR: factor},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0, _FACTOR: factor},
    ]
    return [group for group in groups if group["params"]]


def _head_factor(config: TrainConfig) -> float:
    return 1.0 if config.head_learning_rate is None else config.head_learning_rate / config.learning_rate


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Returns the learning rate of the update that follows `step` finished ones.

    >>> learning_rate(TrainConfig(steps=10, learning_rate=1.0, warmup_steps=4), step=1, total=10)
    0.5
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
    decay = {
        "constant": 1.0,
        "linear": 1.0 - done,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))),
    }[config.schedule]
    return config.learning_rate * max(0.0, decay)


def set_learning_rate(optimiser: torch.optim.Optimizer, value: float) -> None:
    """Sets the learning rate of every parameter group; that of heads keeps its proportion to the network's."""
    for group in optimiser.param_groups:
        group["lr"] = value * group.get(_FACTOR, 1.0)
