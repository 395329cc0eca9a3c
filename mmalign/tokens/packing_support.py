"""Which networks can score packed rows, and what they read then."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmalign.compute.policy import evaluation_mode
from mmalign.tokens.decoders import SplitDecoder, find_base, find_decoder
from mmalign.tokens.packed_attention import ATTENTION, register_attention
from mmalign.tokens.packing import PackedRow, pack

logger = logging.getLogger(__name__)

_PACKS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def packed_inputs(row: PackedRow) -> dict[str, Any]:
    """Returns what a network reads of a packed row: `input_ids`, `position_ids` [1, L], a mask that says nothing."""
    return {"input_ids": row.ids[None], "position_ids": row.positions[None], **unmasked(row.layout)}


def unmasked(layout: Any, device: torch.device | None = None) -> dict[str, Any]:
    """Returns what makes a network attend by `layout` alone: the layout, and a mask that says nothing."""
    # transformers passes a mask of four dimensions on as it is and builds none of its own.
    return {"layout": layout, "attention_mask": torch.zeros(1, 1, 1, 1, device=device)}


def can_pack(network: nn.Module) -> bool:
    """Tells whether a network scores packed rows rightly; said once in the log where it does not.

    Its attention is switched to `packed_attention` (which is `sdpa` for rows that are not packed) and tried once on a
    few tokens. A network with an attention of its own choice, or with windows and recurrences, is left alone.
    """
    base = find_base(network)
    if base not in _PACKS:
        reason = _find_obstacle(base) or _try(network, base)
        _PACKS[base] = not reason
        if reason:
            logger.info("%s is scored in padded rows: %s", type(base).__name__, reason)
    return _PACKS[base]


def _find_obstacle(base: nn.Module) -> str:
    config: Any = getattr(base, "config", None)
    if config is None or not getattr(base, "_supports_attention_backend", False):
        return "its attention cannot be exchanged"
    if config._attn_implementation not in ("sdpa", ATTENTION):
        return f"attention {config._attn_implementation!r} was asked for"
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return f"it has layers of other kinds than full attention: {', '.join(sorted(kinds))}"
    if not kinds and getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True):
        return "it has sliding windows"
    return ""


def _try(network: nn.Module, base: nn.Module) -> str:
    switch: Any = cast(Any, base).set_attn_implementation
    decoder = find_decoder(network)
    if not isinstance(decoder, SplitDecoder):
        return "its head cannot be told apart"
    prompts = [torch.tensor(ids) for ids in ([0, 1, 2], [0, 1, 2], [2, 1])]
    responses = [torch.tensor(ids) for ids in ([1, 0], [2, 0, 1], [1])]
    register_attention()
    with evaluation_mode(network):
        expected = _last_logits_alone(decoder, network, prompts, responses)
        switch(ATTENTION)
        got = _last_logits_packed(decoder, network, prompts, responses)
    if torch.allclose(got, expected, rtol=0, atol=0.02 * float(expected.abs().max())):
        return ""
    switch("sdpa")
    return "a trial gave other logits than padded rows do"


def _last_logits_alone(
    decoder: SplitDecoder, network: nn.Module, prompts: Sequence[Tensor], responses: Sequence[Tensor]
) -> Tensor:
    device = next(network.parameters()).device
    rows = [torch.cat(pair)[None].to(device) for pair in zip(prompts, responses, strict=True)]
    inputs = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]
    return torch.stack([decoder.logits(decoder.run(own).states[0, -1]).float() for own in inputs])


def _last_logits_packed(
    decoder: SplitDecoder, network: nn.Module, prompts: Sequence[Tensor], responses: Sequence[Tensor]
) -> Tensor:
    device = next(network.parameters()).device
    row = pack(prompts, responses)
    inputs = {name: value.to(device) for name, value in packed_inputs(row).items()}
    ends = row.starts + torch.tensor([len(response) for response in responses]) - 1
    return decoder.logits(decoder.run(inputs).states[0, ends.to(device)]).float()
