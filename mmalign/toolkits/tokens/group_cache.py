"""Keys and values while groups of responses are sampled: a prompt's once for all of them, a response's own.

Both classes are layouts for `packed_attention`: they get the keys and values of every layer, and attend.

Shapes: P prompts of up to L positions, b responses in the batch, S steps so far, H heads, K heads of keys and values,
G = H / K, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmalign.toolkits.tokens.packed_attention import attend_packed
from mmalign.toolkits.tokens.packing import PackedLayout

_GROWTH = 64
"""Steps for which room is made at a time."""

Pair = tuple[Tensor, Tensor]
"""Keys and values."""


class PromptReader:
    """The layout of a row of prompts that are read for sampling: it keeps the keys and values of every layer."""

    def __init__(self, layout: PackedLayout) -> None:
        self.layout = layout
        self.kept: dict[int, Pair] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attends within each prompt; see `packed_attention`."""
        self.kept[layer] = (key[0], value[0])  # [K, positions, D]
        return attend_packed(query, key, value, self.layout, scale)


class GroupCache:
    """The layout of a batch of responses that all take their next step, one position each: [b, 1].

    Args:
        reader: has read the prompts.
        lengths: [P], positions of each prompt, in the order in which they were read.
        owners: [b], the prompt of each response, ascending.
    """

    def __init__(self, reader: PromptReader, lengths: Sequence[int], owners: Tensor) -> None:
        self._prompts = {layer: _split(pair, lengths) for layer, pair in reader.kept.items()}
        self._real = torch.arange(max(lengths)) < torch.tensor([[length] for length in lengths])
        self._real = self._real.to(owners.device)  # [P, L]
        self._own: dict[int, Pair] = {}
        self._owners = owners
        self._steps = torch.zeros_like(owners)  # [b]
        self._longest = 0
        self._group()

    def advance(self) -> None:
        """Counts a step, after a forward pass has added its keys and values in every layer."""
        self._steps = self._steps + 1
        self._longest += 1

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attends from the next step of every response to its prompt and its own steps.

        Args:
            query: [b, H, 1, D].
            key: [b, K, 1, D]; `value` likewise.

        Returns:
            [b, 1, H, D].
        """
        own_keys, own_values = self._append(layer, key, value)  # [b, K, S, D]
        prompt_keys, prompt_values = self._prompts[layer]  # [P, K, L, D]
        queries = (query * scale).view(len(query), key.shape[1], -1, query.shape[3])  # [b, K, G, D]
        of_prompt = self._grouped(queries) @ prompt_keys.transpose(2, 3)
        of_prompt = self._ungrouped(of_prompt.masked_fill(~self._real[:, None, None], -torch.inf))  # [b, K, G, L]
        of_own = queries @ own_keys.transpose(2, 3)  # [b, K, G, S]
        later = torch.arange(of_own.shape[3], device=key.device) > self._steps[:, None]
        of_own = of_own.masked_fill(later[:, None, None], -torch.inf)
        weights = torch.cat([of_prompt, of_own], dim=3).softmax(dim=3)
        to_prompt, to_own = torch.split(weights, [of_prompt.shape[3], of_own.shape[3]], dim=3)
        attended = self._ungrouped(self._grouped(to_prompt) @ prompt_values) + to_own @ own_values
        merged: Tensor = attended.flatten(1, 2)[:, None]
        return merged

    def keep(self, rows: Tensor) -> None:
        """Drops all responses but `rows` [b'], ascending, and prompts that have none left."""
        prompts, owners = torch.unique(self._owners[rows], return_inverse=True)
        if len(prompts) < len(self._real):
            self._real = self._real[prompts]
            width = int(self._real.sum(dim=1).max())
            self._real = self._real[:, :width]
            self._prompts = {layer: _take(pair, prompts, width) for layer, pair in self._prompts.items()}
        self._owners, self._steps = owners, self._steps[rows]
        self._longest = int(self._steps.max())
        # What has been added in this pass is behind `steps` and is overwritten, or counted, later.
        self._own = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self._own.items()}
        self._group()

    def join(self, other: GroupCache) -> None:
        """Puts the prompts and responses of `other` behind those of this cache."""
        self._owners = torch.cat([self._owners, other._owners + len(self._real)])
        self._real = _stack(self._real, other._real, dim=1)
        self._steps = torch.cat([self._steps, other._steps])
        self._longest = max(self._longest, other._longest)
        self._prompts = {layer: _join(pair, other._prompts[layer]) for layer, pair in self._prompts.items()}
        for layer, (keys, values) in self._own.items():
            empty = keys.new_zeros(len(other._owners), keys.shape[1], 0, keys.shape[3])
            self._own[layer] = _join((keys, values), other._own.get(layer, (empty, empty)))
        self._group()

    def _append(self, layer: int, key: Tensor, value: Tensor) -> Pair:
        if layer not in self._own:
            empty = key.new_zeros(len(key), key.shape[1], 0, key.shape[3])
            self._own[layer] = (empty, empty)
        keys, values = self._own[layer]
        if keys.shape[2] <= self._longest:
            room = key.new_zeros(*key.shape[:2], _GROWTH, key.shape[3])
            keys, values = torch.cat([keys, room], dim=2), torch.cat([values, room], dim=2)
            self._own[layer] = (keys, values)
        rows = torch.arange(len(key), device=key.device)
        keys[rows, :, self._steps] = key[:, :, 0]
        values[rows, :, self._steps] = value[:, :, 0]
        return keys[:, :, : self._longest + 1], values[:, :, : self._longest + 1]

    def _group(self) -> None:
        """Finds the rows of each prompt, a table [P, g] that is filled up with any row, and each row's place in it."""
        counts = torch.bincount(self._owners, minlength=len(self._real))
        first = counts.cumsum(0) - counts
        place = torch.arange(len(self._owners), device=counts.device) - first[self._owners]
        width = int(counts.max())
        self._table = torch.zeros(len(counts), width, dtype=torch.long, device=counts.device)
        self._table[self._owners, place] = torch.arange(len(self._owners), device=counts.device)
        self._place = self._owners * width + place

    def _grouped(self, states: Tensor) -> Tensor:
        """[b, K, G, n] to [P, K, g x G, n]."""
        return states[self._table].transpose(1, 2).flatten(2, 3)

    def _ungrouped(self, states: Tensor) -> Tensor:
        """[P, K, g x G, n] to [b, K, G, n]."""
        by_row = states.view(*states.shape[:2], self._table.shape[1], -1, states.shape[3]).transpose(1, 2)
        return by_row.flatten(0, 1)[self._place]


def _split(pair: Pair, lengths: Sequence[int]) -> Pair:
    """Cuts [K, positions, D] into prompts: [P, K, L, D]."""
    keys, values = (
        pad_sequence([one.transpose(0, 1) for one in torch.split(states, list(lengths), dim=1)], batch_first=True)
        for states in pair
    )
    return keys.transpose(1, 2).contiguous(), values.transpose(1, 2).contiguous()


def _take(pair: Pair, prompts: Tensor, width: int) -> Pair:
    return pair[0][prompts, :, :width], pair[1][prompts, :, :width]


def _join(one: Pair, other: Pair) -> Pair:
    return _stack(one[0], other[0], dim=2), _stack(one[1], other[1], dim=2)


def _stack(one: Tensor, other: Tensor, *, dim: int) -> Tensor:
    """Joins along the first dimension, filled up with zeros along `dim` where one is shorter."""
    width = max(one.shape[dim], other.shape[dim])
    parts = []
    for states in (one, other):
        shape = list(states.shape)
        shape[dim] = width - shape[dim]
        parts.append(torch.cat([states, states.new_zeros(shape)], dim=dim))
    return torch.cat(parts)
