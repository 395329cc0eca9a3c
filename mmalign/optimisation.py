"""The optimiser and its learning rate, as functions of the step: nothing here has state beside AdamW's moments."""

from __future__ import annotations

import math

import torch
from torch import nn

from mmalign.config import TrainConfig


def build_optimiser(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Builds AdamW over the trainable parameters; weight decay acts on matrices only."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    kept = [group for group in groups if group["params"]]
    return torch.optim.AdamW(kept, lr=config.learning_rate, betas=config.adam_betas)


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
    """Sets the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = value
