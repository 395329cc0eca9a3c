"""The arithmetic that a step needs, whatever a system really computes: the same number for all systems.

A step needs every distinct prompt once and every response once; the output layer only where a step is scored; attention
only to what a position sees. A multiplication with its addition counts as two operations. `docs/benchmarks.md` has the
formula.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM


@dataclass(frozen=True)
class Group:
    """Lengths in tokens: a prompt, and all responses to it in one step."""

    prompt: int
    responses: tuple[int, ...]


Step = Sequence[Group]


@dataclass(frozen=True)
class Network:
    """What decides a network's arithmetic.

    Attributes:
        body: weights that every token is multiplied with, the adapter's left out.
        head: weights of the output layer.
        adapter: weights of the low-rank adapter; 0 in full training.
        attention: layers x heads x head size.
    """

    body: int
    head: int
    adapter: int
    attention: int


def describe_network(folder: Path, rank: int | None) -> Network:
    """Reads a network's sizes from its configuration, without weights.

    Args:
        folder: as transformers loads it.
        rank: of the adapter on all linear layers but the output layer; None in full training.
    """
    config: Any = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        network: Any = AutoModelForCausalLM.from_config(config)
    head = network.get_output_embeddings()
    layers = [one for one in network.modules() if isinstance(one, nn.Linear) and one is not head]
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Network(
        body=sum(layer.weight.numel() for layer in layers),
        head=head.weight.numel(),
        adapter=sum((layer.in_features + layer.out_features) * rank for layer in layers) if rank else 0,
        attention=config.num_hidden_layers * config.num_attention_heads * size,
    )


def group_lengths(rows: Iterable[tuple[Hashable, int, int]]) -> list[Group]:
    """Groups the responses of a step by prompt.

    Args:
        rows: for every response its prompt, the prompt's tokens and its own.
    """
    groups: dict[Hashable, tuple[int, list[int]]] = {}
    for prompt, length, response in rows:
        groups.setdefault(prompt, (length, []))[1].append(response)
    return [Group(length, tuple(responses)) for length, responses in groups.values()]


def count_tokens(step: Step) -> int:
    """Counts the tokens of a step, a prompt with each of its responses."""
    return sum(group.prompt * len(group.responses) + sum(group.responses) for group in step)


def count_operations(method: str, network: Network, step: Step) -> float:
    """Counts the useful operations of an optimiser step.

    Args:
        method: `dpo`, `kto`, `reward_model` or `grpo`.
        network: `adapter` is 0 if all weights are trained.
    """
    scored = method != "reward_model"
    tokens = sum(group.prompt + sum(group.responses) for group in step)
    steps = sum(sum(group.responses) for group in step) if scored else 0
    weights = 2.0 * (network.body * tokens + network.head * steps)
    adapter = 2.0 * network.adapter * tokens
    attention = 4.0 * network.attention * sum(map(_count_attended, step))
    # Backward: each product once for the gradient of its input, once more for that of a trained weight.
    update = (2 if network.adapter else 3) * weights + 3 * adapter + 3 * attention
    if method in ("dpo", "kto"):
        update += weights + attention
    if method == "kto":
        update += _count_mismatched(network, step)
    # Sampling: one forward pass, a token at a time.
    return update + weights + adapter + attention if method == "grpo" else update


def _count_attended(group: Group) -> int:
    """Counts pairs of a position and one that it sees, itself included."""
    own = [group.prompt, *group.responses]
    return sum(length * (length + 1) // 2 for length in own) + group.prompt * sum(group.responses)


def _count_mismatched(network: Network, step: Step) -> float:
    """Counts KTO's reference point: policy and reference on every response once more, under the next prompt."""
    total = 0.0
    for group, following in zip(step, [*step[1:], *step[:1]], strict=True):
        for length in group.responses:
            seen = length * (length + 1) // 2 + following.prompt * length
            body = 2.0 * (network.body + network.head) * length
            total += 2 * (body + 4.0 * network.attention * seen) + 2.0 * network.adapter * length
    return total
