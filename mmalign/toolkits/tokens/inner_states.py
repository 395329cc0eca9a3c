"""The inside of a token network: what its layers compute at every position, for modules that are trained on it.

Activations are found by the names that transformers gives to linear layers: what queries, keys and values are projected
to, and what the last matrix of an MLP reads. An adapter on such a layer counts, unless it is switched off.

Shapes: rows x L positions, D hidden size, A activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

PROJECTIONS = frozenset("q_proj k_proj v_proj qkv_proj query_key_value Wqkv c_attn".split())
"""Layers whose outputs are queries, keys or values, alone or together."""

MLP_OUTPUTS = frozenset("down_proj dense_4h_to_h fc2 w2 mlp.c_proj".split())
"""Layers whose input is the activation of an MLP."""


@contextmanager
def record_activations(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Records, while it is active, the mean over units of activations [rows, L] by the name of their layer."""
    found: dict[str, Tensor] = {}

    def keep_output(name: str) -> Any:
        return lambda module, inputs, output: found.update({name: output.float().mean(dim=-1)})

    def keep_input(name: str) -> Any:
        return lambda module, inputs: found.update({name: inputs[0].float().mean(dim=-1)})

    hooks = []
    for name, module in network.named_modules():
        parent, leaf = ["", *name.split(".")][-2:]
        if leaf in PROJECTIONS:
            hooks.append(module.register_forward_hook(keep_output(name)))
        elif {leaf, f"{parent}.{leaf}"} & MLP_OUTPUTS:
            hooks.append(module.register_forward_pre_hook(keep_input(name)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def stack_activations(layers: Sequence[Tensor], recorded: dict[str, Tensor], places: Tensor) -> Tensor:
    """Joins the mean of every layer's state with what was recorded, at some places of the flattened rows.

    Args:
        layers: states [rows, L, D] after every layer.
        recorded: activations [rows, L] of `record_activations`.
        places: [S].

    Returns:
        [S, A].
    """
    means = [layer.float().mean(dim=-1) for layer in layers]
    return torch.stack([mean.flatten().index_select(0, places) for mean in (*means, *recorded.values())], dim=-1)


def gather_context(hidden: Tensor, prompts: Sequence[range]) -> Tensor:
    """Takes the states of N prompts from the flattened rows [rows x L, D]: [N, C, D], NaN beyond the end of each."""
    rows = [hidden[prompt.start : prompt.stop].float() for prompt in prompts]
    return pad_sequence(rows, batch_first=True, padding_value=torch.nan)
