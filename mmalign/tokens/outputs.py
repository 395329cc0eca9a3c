"""What is read off one pass of a token network: log-probs and comparisons, heads, and the inside of the network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmalign.compute.policy import Heads
from mmalign.tokens.decoders import Decoder, DecoderOutput, find_text_part
from mmalign.tokens.inner_states import gather_context, record_activations, stack_activations
from mmalign.tokens.logps import OWN_OUTPUTS, score_steps
from mmalign.values import Anchor

if TYPE_CHECKING:
    from mmalign.tokens.modality import TokenBatch

_OF_LAYERS = ("layers", "activations")


@dataclass(frozen=True)
class Reading:
    """How outputs are read.

    Attributes:
        temperature: divides the logits, the anchors', too.
        chunk: positions whose logits exist at the same time.
        heads: `values` and `scores`, if these are wanted.
        anchors: what the policy is compared with, by name; their states are [N, T, ...].
    """

    temperature: float
    chunk: int
    heads: Heads | None = None
    anchors: Mapping[str, Anchor] = field(default_factory=dict)


def read_outputs(
    network: nn.Module, decoder: Decoder, batch: TokenBatch, want: Collection[str], reading: Reading
) -> dict[str, Tensor]:
    """Runs `network` once over a batch and computes what is wanted and `step_mask`; see `Modality.step_outputs`.

    Args:
        decoder: body and head of the network.
        batch: on the network's device.
    """
    recording: AbstractContextManager[dict[str, Tensor]] = nullcontext({})
    if "activations" in want:
        recording = record_activations(find_text_part(network))
    with recording as recorded:
        output = decoder.run(batch.inputs, layers=not set(_OF_LAYERS).isdisjoint(want))
    outputs = {"step_mask": batch.mask}
    outputs |= _read_states(decoder, output, batch, want, reading)
    inside = _read_inside(output, recorded, batch, want)
    outputs |= {name: _spread(value, batch.mask) for name, value in inside.items()}
    hidden = output.hidden.flatten(0, 1)  # [rows x L, D]
    if "context" in want:
        outputs["context"] = gather_context(hidden, batch.prompts)
    if "values" in want:
        outputs["values"] = _spread(_apply(reading.heads, "values", _take(output.hidden, batch.places)), batch.mask)
    if "scores" in want:
        outputs["scores"] = _apply(reading.heads, "scores", hidden[batch.last])
    return outputs


def _read_states(
    decoder: Decoder, output: DecoderOutput, batch: TokenBatch, want: Collection[str], reading: Reading
) -> dict[str, Tensor]:
    states = _take(output.states, batch.places)  # [S, ...]
    outputs: dict[str, Tensor] = {}
    if reading.anchors or set(want) & set(OWN_OUTPUTS):
        own = {name: replace(one, states=one.states[batch.mask]) for name, one in reading.anchors.items()}
        options: dict[str, Any] = {"temperature": reading.temperature, "chunk": reading.chunk, "anchors": own}
        scored = score_steps(decoder, states, batch.targets, want, **options)
        outputs |= {name: _spread(value, batch.mask) for name, value in scored.items()}
    if "states" in want:
        outputs["states"] = _spread(states, batch.mask)
    return outputs


def _read_inside(
    output: DecoderOutput, recorded: dict[str, Tensor], batch: TokenBatch, want: Collection[str]
) -> dict[str, Tensor]:
    """Reads [S, ...] tensors at the places that predict the scored steps."""
    inside: dict[str, Tensor] = {}
    if "hidden" in want:
        inside["hidden"] = _take(output.hidden, batch.places)
    if "layers" in want:
        inside["layers"] = torch.stack([_take(one, batch.places) for one in output.layers], dim=1)
    if "activations" in want:
        inside["activations"] = stack_activations(output.layers, recorded, batch.places)
    return inside


def _take(rows: Tensor, places: Tensor) -> Tensor:
    """Takes the states at some places of the flattened rows: [rows, L, ...] and [S] to [S, ...]."""
    # Several steps share a place, the end of a prompt. The gradient of indexing would be added up in the order in which
    # threads come, so that two runs differ in their last bits.
    return rows.flatten(0, 1).index_select(0, places)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """Puts values [S, ...] of the scored steps into rows [N, T, ...]; zero elsewhere."""
    rows = torch.zeros(*mask.shape, *values.shape[1:], dtype=values.dtype, device=values.device)
    return rows.masked_scatter(mask.view(*mask.shape, *[1] * (values.dim() - 1)), values)


def _apply(heads: Heads | None, name: str, hidden: Tensor) -> Tensor:
    if heads is None:
        raise ValueError(f"{name} wanted, but no heads given")
    # Heads are float32 also under autocast: rewards differ by less than bfloat16 resolves.
    with torch.autocast(hidden.device.type, enabled=False):
        read: Tensor = heads[name](hidden.float())
    return read.squeeze(-1)
