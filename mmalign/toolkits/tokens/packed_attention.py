"""Attention of packed rows: nothing attends outside of its own prompt and response.

transformers calls `packed_attention` through its attention interface; the layout travels as a keyword argument of the
forward pass, so that recomputation in the backward pass finds it, too. There are two ways to compute it:

- by segments: matrix products over exactly the keys that a segment sees, recomputed in the backward pass;
- by FlexAttention on a GPU, where many small products would cost more than one kernel that skips masked blocks.

Shapes: L positions of the row, H heads, K heads of keys and values, G = H / K, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmalign.toolkits.tokens.packing import TILE, PackedLayout, Segment

ATTENTION = "mmalign_packed"
"""Name of `packed_attention` in transformers' attention interface."""


class Layout(Protocol):
    """A layout that keeps keys and values itself."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attends in layer number `layer`; see `packed_attention`."""


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: PackedLayout | Layout | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attends as `layout` says; without one, as transformers' own `sdpa` does.

    Args:
        query: [1, H, L, D].
        key: [1, K, L, D]; `value` likewise.
        layout: of a packed row, or one that attends by itself and may have another number of rows than 1.

    Returns:
        [1, L, H, D], and None for the attention weights.
    """
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return attended, None
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if isinstance(layout, PackedLayout):
        return attend_packed(query, key, value, layout, scale), None
    return layout.attend(cast(Any, module).layer_idx, query, key, value, scale), None


def attend_packed(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    """Attends within a packed row in the way that suits the device; see `packed_attention`."""
    attend = attend_by_flex if query.device.type == "cuda" else attend_by_segments
    return attend(query, key, value, layout, scale)


def register_attention() -> None:
    """Makes `packed_attention` known to transformers; may be called again."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


# -- by segments


def attend_by_segments(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    """Attends segment by segment on any device; see `packed_attention`."""
    queries = (query[0] * scale).view(key.shape[1], -1, *query.shape[2:])  # [K, G, L, D]
    apply: Callable[..., Tensor] = _Segments.apply
    return apply(queries, key[0], value[0], layout.segments).flatten(1, 2)[None]


class _Segments(torch.autograd.Function):
    """Query [K, G, L, D], key and value [K, L, D] to attended [L, K, G, D]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: tuple[Segment, ...]) -> Tensor:
        future, room = _future(query.device), _Room(query, segments)
        attended = query.new_empty(query.shape[2], *query.shape[:2], query.shape[3])
        for segment in segments:
            weights = _weigh(query, key, segment, future, room)
            own = attended[segment.start : segment.stop].permute(1, 2, 0, 3)  # [K, G, queries, D]
            own.copy_((weights @ _seen(value, segment)).view(own.shape))
        ctx.save_for_backward(query, key, value)
        ctx.segments = segments
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value = ctx.saved_tensors
        future, room = _future(query.device), _Room(query, ctx.segments)
        grad = grad.permute(1, 2, 0, 3)  # [K, G, L, D]
        grad_query = torch.empty_like(query)
        # A prompt gets a share from each of its responses: they are added up in float32.
        wide = torch.promote_types(key.dtype, torch.float32)
        grad_key, grad_value = torch.zeros_like(key, dtype=wide), torch.zeros_like(value, dtype=wide)
        for segment in ctx.segments:
            weights = _weigh(query, key, segment, future, room)
            own_grad, own_query = _rows(grad, segment), _rows(query, segment)
            _add_seen(grad_value, segment, weights.transpose(1, 2) @ own_grad)
            grad_weights = room.take(0, weights.shape)  # where the scores were
            torch.matmul(own_grad, _seen(value, segment).transpose(1, 2), out=grad_weights)
            # A row is read before it is written, so the gradient of the scores takes the place of the weights'.
            soften = torch.ops.aten._softmax_backward_data.out
            grad_scores = soften(grad_weights, weights, -1, weights.dtype, grad_input=grad_weights)
            _add_seen(grad_key, segment, grad_scores.transpose(1, 2) @ own_query)
            own = grad_query[:, :, segment.start : segment.stop]
            own.copy_((grad_scores @ _seen(key, segment)).view_as(own))
        return grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype), None


class _Room:
    """Memory for two tensors of one number for every query and key of a segment, used again for all segments.

    Blocks of many sizes that are taken and given back would stay with the process.
    """

    def __init__(self, query: Tensor, segments: Sequence[Segment]) -> None:
        heads = query.shape[0] * query.shape[1]
        largest = max(heads * (segment.stop - segment.start) * segment.keys for segment in segments)
        self._blocks = query.new_empty(2, largest)

    def take(self, block: int, shape: Sequence[int]) -> Tensor:
        """Returns one of the two as a tensor of a shape, holding anything."""
        return self._blocks[block, : prod(shape)].view(*shape)


def _weigh(query: Tensor, key: Tensor, segment: Segment, future: Tensor, room: _Room) -> Tensor:
    """Computes the attention weights of a segment's queries: [K, G x queries, keys], in the second block of `room`."""
    rows, count = _rows(query, segment), segment.stop - segment.start
    shape = (*rows.shape[:2], segment.keys)
    scores = room.take(0, shape)
    torch.matmul(rows, _seen(key, segment).transpose(1, 2), out=scores)
    latest = scores.view(len(query), -1, count, scores.shape[2])[..., -count:]
    latest.masked_fill_(future[:count, :count], -torch.inf)
    return torch.softmax(scores, dim=-1, out=room.take(1, shape))


def _rows(states: Tensor, segment: Segment) -> Tensor:
    return states[:, :, segment.start : segment.stop].flatten(1, 2)  # [K, G x queries, D]


def _seen(states: Tensor, segment: Segment) -> Tensor:
    """Takes the keys or values that a segment attends to: [K, keys, D]."""
    start, stop = segment.prompt
    if stop in (start, segment.first):
        return states[:, start if stop > start else segment.first : segment.stop]
    return torch.cat([states[:, start:stop], states[:, segment.first : segment.stop]], dim=1)


def _add_seen(total: Tensor, segment: Segment, share: Tensor) -> None:
    start, stop = segment.prompt
    total[:, start:stop] += share[:, : stop - start]
    total[:, segment.first : segment.stop] += share[:, stop - start :]


def _future(device: torch.device) -> Tensor:
    return torch.ones(TILE, TILE, dtype=torch.bool, device=device).triu(1)


# -- by FlexAttention


def attend_by_flex(query: Tensor, key: Tensor, value: Tensor, layout: PackedLayout, scale: float) -> Tensor:
    """Attends with FlexAttention, compiled on a GPU; see `packed_attention`.

    Source: Dong et al., Flex Attention: A Programming Model for Generating Optimized Attention Kernels
    (arXiv:2412.05496).
    """
    mask = _block_mask(layout)
    attended = _flex_attention(query.device.type)(
        query, key, value, block_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return cast(Tensor, attended).transpose(1, 2)


@lru_cache(maxsize=2)
def _block_mask(layout: PackedLayout) -> Any:
    """Builds the mask of a row, once for all layers: the layout is the same object in all of them."""
    from torch.nn.attention.flex_attention import create_block_mask

    group, branch = layout.group, layout.branch

    def sees(batch: Tensor, head: Tensor, at: Tensor, other: Tensor) -> Tensor:
        of_prompt_or_own = (branch[other] < 0) | (branch[other] == branch[at])
        return (at >= other) & (group[at] == group[other]) & of_prompt_or_own

    compiled = group.device.type == "cuda"
    return create_block_mask(sees, None, None, len(group), len(group), device=group.device, _compile=compiled)


@lru_cache
def _flex_attention(device: str) -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    attend: Callable[..., Any] = flex_attention
    return torch.compile(attend, dynamic=True) if device == "cuda" else attend
