"""Packing: many responses in one row without padding, a prompt computed once for all of its responses.

A row is prompt, response, response, ..., prompt, response, ...; every response attends to its own prompt and to itself,
with positions that go on from the prompt's end. Everything but attention works token by token and needs no padding at
all; attention runs as two calls of scaled dot products a layer, one over all prompts, one over all responses.

transformers calls `packed_attention` through its attention interface; the layout travels as a keyword argument of the
forward pass, so that recomputation in the backward pass finds it, too.

Shapes: L positions of the row, G prompts of up to P tokens, N responses of up to R tokens, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence

ATTENTION = "mmalign_packed"
"""Name of `packed_attention` in transformers' attention interface."""

SMALL = 2**14
"""Query-key pairs of a block up to which plain products beat the CPU's fused kernel in half precision: its backward
pass takes 2 to 4 times as long there (16 blocks of 9 heads, 40 queries, 80 keys: 43 against 13 ms)."""


@dataclass(frozen=True)
class PackedLayout:
    """Where the prompts and responses of a row are.

    Attributes:
        prompts: [G, P], the position of every prompt token; 0 where a shorter prompt is filled up.
        responses: [N, R], likewise.
        owner: [N], the prompt of each response.
        mask: [N, 1, R, P + R] bool, what a response token sees of its prompt and of its response.
        source: [L], where in all attended prompt rows, then response rows, each position's result is.
    """

    prompts: Tensor
    responses: Tensor
    owner: Tensor
    mask: Tensor
    source: Tensor

    def to(self, device: torch.device) -> PackedLayout:
        """Returns this layout on `device`."""
        return PackedLayout(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class PackedRow:
    """Token ids of a row and where each response is in it.

    Attributes:
        ids: [L].
        positions: [L], position ids.
        layout: for attention.
        prompt_ends: [N], the position of the last prompt token of each response.
        starts: [N], the position of each response's first token.
    """

    ids: Tensor
    positions: Tensor
    layout: PackedLayout
    prompt_ends: Tensor
    starts: Tensor


def pack(prompts: Sequence[Tensor], responses: Sequence[Tensor]) -> PackedRow:
    """Packs N responses; equal prompts are put into the row once.

    Args:
        prompts: N prompts, token ids, at least one token each.
        responses: N responses, token ids, at least one token each.
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt.tolist()), []).append(row)
    pieces: list[Tensor] = []
    positions: list[Tensor] = []
    prompt_spans: list[Tensor] = []
    spans: list[Tensor] = [torch.empty(0)] * len(prompts)
    owner = torch.empty(len(prompts), dtype=torch.long)
    length = 0
    for number, rows in enumerate(members.values()):
        prompt = prompts[rows[0]]
        for piece, offset in ((prompt, 0), *((responses[row], len(prompt)) for row in rows)):
            pieces.append(piece)
            positions.append(torch.arange(offset, offset + len(piece)))
        prompt_spans.append(torch.arange(length, length + len(prompt)))
        length += len(prompt)
        for row in rows:
            owner[row] = number
            spans[row] = torch.arange(length, length + len(responses[row]))
            length += len(responses[row])
    return PackedRow(
        ids=torch.cat(pieces),
        positions=torch.cat(positions),
        layout=_build_layout(prompt_spans, spans, owner, length),
        prompt_ends=torch.stack([prompt_spans[number][-1] for number in owner.tolist()]),
        starts=torch.stack([span[0] for span in spans]),
    )


def _build_layout(prompts: Sequence[Tensor], responses: Sequence[Tensor], owner: Tensor, length: int) -> PackedLayout:
    prompt_at, response_at = pad_sequence(list(prompts), True), pad_sequence(list(responses), True)  # [G, P], [N, R]
    prompt_real = _real(prompts, prompt_at.shape[1])
    response_real = _real(responses, response_at.shape[1])
    steps = response_at.shape[1]
    causal = torch.ones(steps, steps, dtype=torch.bool).tril()
    seen = prompt_real[owner][:, None, :].expand(-1, steps, -1)  # [N, R, P]
    mask = torch.cat([seen, causal.expand(len(responses), -1, -1)], dim=2)
    source = torch.empty(length, dtype=torch.long)
    source[prompt_at[prompt_real]] = prompt_real.flatten().nonzero().flatten()
    source[response_at[response_real]] = prompt_real.numel() + response_real.flatten().nonzero().flatten()
    return PackedLayout(prompt_at, response_at, owner, mask[:, None], source)


def _real(spans: Sequence[Tensor], width: int) -> Tensor:
    return torch.arange(width) < torch.tensor([[len(span)] for span in spans])


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: PackedLayout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attends within the blocks of a packed row; without a layout, as transformers' own `sdpa` does.

    Args:
        query: [1, H, L, D]; `key` and `value` may have fewer heads.

    Returns:
        [1, L, H, D], and None for the attention weights.
    """
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended, None
    scale = options.get("scaling")
    queries, keys, values = (_by_position(states, query.shape[1]) for states in (query, key, value))  # [L, H, D]
    prompt_keys, prompt_values = _blocks(keys, layout.prompts), _blocks(values, layout.prompts)  # [G, H, P, D]
    # Padding follows the prompt, where causal attention does not look.
    of_prompts = _attend(_blocks(queries, layout.prompts), prompt_keys, prompt_values, None, scale)
    of_responses = _attend(
        _blocks(queries, layout.responses),
        torch.cat([prompt_keys[layout.owner], _blocks(keys, layout.responses)], dim=2),
        torch.cat([prompt_values[layout.owner], _blocks(values, layout.responses)], dim=2),
        layout.mask,
        scale,
    )
    flat = torch.cat([_flatten(of_prompts), _flatten(of_responses)])
    return flat[layout.source][None], None


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attends by `mask`, or causally without one: [blocks, H, queries, D]."""
    # Not by whether a gradient is wanted: the reference must round as the policy does.
    small = queries.shape[2] * keys.shape[2] <= SMALL
    if not (small and queries.device.type == "cpu" and queries.dtype != torch.float32):
        return scaled_dot_product_attention(queries, keys, values, mask, is_causal=mask is None, scale=scale)
    if mask is None:
        mask = torch.ones(queries.shape[2], keys.shape[2], dtype=torch.bool).tril()
    scores = (queries @ keys.transpose(2, 3)).float() * (queries.shape[3] ** -0.5 if scale is None else scale)
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).to(values.dtype) @ values


def _by_position(states: Tensor, heads: int) -> Tensor:
    rows = states[0].transpose(0, 1)  # [L, heads, D]
    return rows if rows.shape[1] == heads else rows.repeat_interleave(heads // rows.shape[1], dim=1)


def _blocks(states: Tensor, positions: Tensor) -> Tensor:
    return states[positions].transpose(1, 2)  # [blocks, H, width, D]


def _flatten(attended: Tensor) -> Tensor:
    return attended.transpose(1, 2).flatten(0, 1)  # [blocks x width, H, D]


def register_attention() -> None:
    """Makes `packed_attention` known to transformers; may be called again."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
