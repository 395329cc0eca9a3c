"""Which networks can score packed rows, and what they read then."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mmalign.networks.float32 import in_float32
from mmalign.networks.policy import evaluation_mode
from mmalign.toolkits.tokens.decoders import SplitDecoder, find_base, find_decoder, find_text_part
from mmalign.toolkits.tokens.packed_attention import ATTENTION, register_attention
from mmalign.toolkits.tokens.packing import PackedRow, pack
from mmalign.toolkits.tokens.prompts import Prompt, first_of_kinds, join_media, mark_row, pad_rows

logger = logging.getLogger(__name__)

_PACKS: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], bool]] = WeakKeyDictionary()
"""For every network that was tried: whether it packs prompts with such media."""


def packed_inputs(row: PackedRow) -> dict[str, Any]:
    """Returns what a network reads of a packed row.

    Returns:
        `input_ids` [1, L], `position_ids` [1, L] or [A, 1, L], marks, media, the layout, a mask that says nothing.
    """
    positions = row.positions if len(row.positions) == 1 else row.positions[:, None]
    marks = {name: mark[None] for name, mark in row.marks.items()}
    tokens = {"input_ids": row.ids[None], "position_ids": positions}
    return {**tokens, **marks, **join_media(row.prompts), **unmasked(row.layout)}


def unmasked(layout: Any, device: torch.device | None = None) -> dict[str, Any]:
    """Returns what makes a network attend by `layout` alone: the layout, and a mask that says nothing."""
    # transformers passes a mask of four dimensions on as it is and builds none of its own.
    return {"layout": layout, "attention_mask": torch.zeros(1, 1, 1, 1, device=device)}


def can_pack(network: nn.Module, prompts: Sequence[Prompt] = ()) -> bool:
    """Returns whether a network scores packed rows of such prompts rightly; said once in the log where it does not.

    The attention of the part that reads tokens is switched to `packed_attention` (which is `sdpa` for rows that are not
    packed) and tried once on a few tokens, and once on the first prompt with images, sounds or both: some networks let
    these look ahead. A network with an attention of its own choice, or with windows and recurrences, is left alone.
    """
    base = find_base(network)
    known = _PACKS.setdefault(base, {})
    if () not in known:
        known[()] = _said(base, _find_obstacle(find_text_part(base)) or _try(network, _TEXTS))
    if not known[()]:
        return False
    kinds = first_of_kinds(prompts)
    for kind, prompt in kinds.items():
        if kind not in known:
            known[kind] = _said(base, _try(network, [prompt, prompt, _lengthen(prompt)]))
    return all(known[kind] for kind in kinds)


def _said(base: nn.Module, reason: str) -> bool:
    if reason:
        logger.info("%s is scored in padded rows: %s", type(base).__name__, reason)
    return not reason


def _lengthen(prompt: Prompt) -> Prompt:
    """Returns another prompt with the same media: one token more."""
    positions = torch.full((len(prompt.positions), 1), prompt.next_position)
    marks = {name: mark_row(prompt, name, 1) for name in prompt.marks}
    ids = torch.cat([prompt.ids, _RESPONSES[-1]])
    return Prompt(ids, torch.cat([prompt.positions, positions], dim=1), marks, prompt.media)


def _find_obstacle(text: nn.Module) -> str:
    config: Any = getattr(text, "config", None)
    if config is None or not getattr(text, "_supports_attention_backend", False):
        return "its attention cannot be exchanged"
    if config._attn_implementation not in ("sdpa", ATTENTION):
        return f"attention {config._attn_implementation!r} was asked for"
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return f"it has layers of other kinds than full attention: {', '.join(sorted(kinds))}"
    if not kinds and getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "it has sliding windows"
    return ""


_TEXTS = [Prompt.of(torch.tensor(ids)) for ids in ([0, 1, 2], [0, 1, 2], [2, 1])]
_RESPONSES = [torch.tensor(ids) for ids in ([1, 0], [2, 0, 1], [1])]


def _try(network: nn.Module, prompts: Sequence[Prompt]) -> str:
    text: Any = find_text_part(network)
    if not isinstance(find_decoder(network), SplitDecoder):
        return "its head cannot be told apart"
    before = text.config._attn_implementation
    register_attention()
    try:
        # Rounding to half precision changes the logits of deep networks as much as some mistakes would.
        with evaluation_mode(network), in_float32(network):
            gap = _measure_gap(network, prompts)
        tolerance = 1e-3 if _device(network) == "cpu" else 0.01  # a GPU may multiply in TF32
    except RuntimeError:  # it reads weights of a module that does not run: its own precision, with room for rounding
        with evaluation_mode(network):
            gap = _measure_gap(network, prompts)
        tolerance = 0.05
    if gap <= tolerance:
        return ""
    text.set_attn_implementation(before)
    return "a trial gave other logits than padded rows do"


def _measure_gap(network: nn.Module, prompts: Sequence[Prompt]) -> float:
    """Returns how far last logits of packed rows are from those of padded ones, as a share of the largest."""
    text: Any = find_text_part(network)
    decoder = cast(SplitDecoder, find_decoder(network))
    text.set_attn_implementation("sdpa")
    expected = _last_logits_alone(decoder, prompts)
    text.set_attn_implementation(ATTENTION)
    got = _last_logits_packed(decoder, prompts)
    return float((got - expected).abs().max() / expected.abs().max())


def _device(network: nn.Module) -> str:
    return next(network.parameters()).device.type


def _last_logits_alone(decoder: SplitDecoder, prompts: Sequence[Prompt]) -> Tensor:
    rows = []
    for prompt, response in zip(prompts, _RESPONSES, strict=True):
        inputs = pad_rows([prompt], [response], pad_id=0, side="right")
        if len(prompt.positions) == 1:
            del inputs["position_ids"]  # the network's own are what packed positions have to equal
        rows.append(decoder.run(decoder.fit(inputs)).states[0, -1])
    return torch.stack([decoder.logits(row).float() for row in rows])


def _last_logits_packed(decoder: SplitDecoder, prompts: Sequence[Prompt]) -> Tensor:
    row = pack(prompts, _RESPONSES)
    ends = row.starts + torch.tensor([len(response) for response in _RESPONSES]) - 1
    states = decoder.run(decoder.fit(packed_inputs(row))).states[0]
    return decoder.logits(states[ends.to(states.device)]).float()
