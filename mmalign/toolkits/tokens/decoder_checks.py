"""A trial of a decoder that is not one of transformers' own, before it scores or samples anything.

Three made-up rows go through it; each answer is held against what `mmalign.toolkits.tokens.decoders.Decoder` promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn

from mmalign.errors import PluginError
from mmalign.foreign import foreign_code
from mmalign.networks.policy import evaluation_mode
from mmalign.toolkits.tokens.decoders import Decoder, DecoderOutput, find_base
from mmalign.toolkits.tokens.prompts import Prompt, pad_rows

_ROWS = [torch.tensor(ids) for ids in ([0, 1, 2], [2, 1], [1, 1, 2, 0])]
_KEPT = torch.tensor([2, 0, 2])
"""Which rows go on: others than all, in another order, one of them twice."""

_CHECKED: WeakSet[nn.Module] = WeakSet()


def require_decoder(network: nn.Module, decoder: Decoder) -> None:
    """Checks once for every network that a decoder of an author's own keeps the protocol.

    Raises:
        PluginError: it raises, returns something else than was asked for, or a step that reads the cache gives other
            logits than the whole row.
    """
    base = find_base(network)
    if base in _CHECKED or (decoder.packable and hasattr(base, "config")):
        return
    problem = _try(network, decoder)
    if problem:
        raise PluginError(
            f"{type(decoder).__name__} of {type(base).__name__}: {problem}; docs/modalities.md says what a decoder owes"
        )
    _CHECKED.add(base)


def _try(network: nn.Module, decoder: Decoder) -> str:
    base = find_base(network)
    owner = base if decoder.packable else decoder
    try:
        with foreign_code(f"{type(decoder).__name__} of {type(base).__name__}", owner), evaluation_mode(network):
            return _find_problem(decoder)
    except PluginError as error:
        if not decoder.packable:
            raise
        asked = "override TokenModality.build_decoder for a network that is none of transformers'"
        raise PluginError(f"{error}; {asked}") from error


def _find_problem(decoder: Decoder) -> str:
    inputs = _pad(_ROWS, "right")
    output = decoder.run(decoder.fit(inputs))
    if problem := _find_wrong_output(output, inputs["input_ids"]):
        return problem
    ends = torch.tensor([len(row) - 1 for row in _ROWS], device=decoder.device)
    states = output.states[torch.arange(len(ends), device=ends.device), ends]
    return _find_wrong_head(decoder, states) or _find_wrong_cache(decoder, states)


def _find_wrong_cache(decoder: Decoder, states: Tensor) -> str:
    """Samples as `tokens.generation` does: all tokens but the last are the prompts, the last one is read alone.

    Args:
        states: of whole rows, where they end.
    """
    prompts = _pad([row[:-1] for row in _ROWS], "left")
    begun = decoder.run(decoder.fit(prompts), use_cache=True)
    if not callable(getattr(begun.cache, "batch_select_indices", None)):
        return f"run(use_cache=True) gives {_name(begun.cache)} for a cache, which has no method batch_select_indices"
    begun.cache.batch_select_indices(_KEPT.to(decoder.device))
    mask = prompts["attention_mask"][_KEPT]
    step = {
        "input_ids": torch.stack([row[-1:] for row in _ROWS])[_KEPT],
        "attention_mask": torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1),
        "position_ids": torch.tensor([[len(row) - 1] for row in _ROWS])[_KEPT],
    }
    further = decoder.run({**decoder.fit(step), "past_key_values": begun.cache}, use_cache=True)
    expected = decoder.logits(states[_KEPT.to(decoder.device)]).float()
    got = decoder.logits(further.states[:, -1]).float()
    # Half precision rounds more than a wrong cache of so few tokens may hide.
    tolerance = (1e-3 if decoder.dtype == torch.float32 else 0.05) * float(expected.abs().max())
    if got.shape == expected.shape and torch.allclose(got, expected, rtol=0, atol=tolerance):
        return ""
    return (
        "a step that reads the cache, behind left padding and of selected rows, gives other logits than the whole row"
    )


def _pad(rows: Sequence[Tensor], side: Literal["left", "right"]) -> dict[str, Tensor]:
    return pad_rows([Prompt.of(row) for row in rows], [row[:0] for row in rows], 0, side)


def _find_wrong_output(output: Any, ids: Tensor) -> str:
    if not isinstance(output, DecoderOutput):
        return f"run gives {_name(output)}, expected a DecoderOutput"
    rows, length = ids.shape
    for name, axes in (("states", "..."), ("hidden", "D")):
        value = getattr(output, name)
        fits = isinstance(value, Tensor) and value.shape[:2] == ids.shape and value.is_floating_point()
        if not fits or (axes == "D" and value.dim() != 3):
            expected = f"expected floats of [{rows}, {length}, {axes}]"
            return f"run on ids [{rows}, {length}] gives {name} of {_shape(value)}, {expected}"
    return ""


def _find_wrong_head(decoder: Decoder, states: Tensor) -> str:
    logits = decoder.logits(states)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(states):
        return f"logits of {_shape(states)} are {_shape(logits)}, expected [{len(states)}, V]"
    if not bool(logits.isfinite().all()):
        return "logits of a few tokens are not finite"
    weights = decoder.head_weights()
    if not isinstance(weights, tuple) or not all(isinstance(one, Tensor) for one in weights):
        return f"head_weights gives {_name(weights)}, expected a tuple of tensors"
    return ""


def _shape(value: Any) -> str:
    return f"the shape {list(value.shape)}" if isinstance(value, Tensor) else _name(value)


def _name(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
