"""What is read off one pass of a token network: log-probs and comparisons, heads, and the inside of the network."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmalign.contract.forward_plan import ForwardPlan, Output
from mmalign.contract.values import Anchor
from mmalign.networks.policy import Heads
from mmalign.toolkits.tokens.decoders import Decoder, DecoderOutput, find_text_part
from mmalign.toolkits.tokens.inner_states import gather_context, record_activations, stack_activations
from mmalign.toolkits.tokens.logps import score_steps

if TYPE_CHECKING:
    from mmalign.toolkits.tokens.modality import TokenBatch

_OF_LAYERS = frozenset((Output.LAYERS, Output.ACTIVATIONS))


@dataclass(frozen=True)
class Reading:
    """How outputs are read.

    Attributes:
        temperature: divides the logits, the anchors', too.
        chunk: positions whose logits exist at the same time.
        heads: `values` and `scores`, if these are planned.
        anchors: what the policy is compared with, by name; their states are [N, T, ...].
    """

    temperature: float
    chunk: int
    heads: Heads | None = None
    anchors: Mapping[str, Anchor] = field(default_factory=dict)


def read_outputs(
    network: nn.Module, decoder: Decoder, batch: TokenBatch, plan: ForwardPlan, reading: Reading
) -> dict[str, Tensor]:
    """Runs `network` once over a batch and computes what is planned and `step_mask`; see `Modality.step_outputs`.

    Args:
        decoder: body and head of the network.
        batch: on the network's device.
    """
    recording: AbstractContextManager[dict[str, Tensor]] = nullcontext({})
    if Output.ACTIVATIONS in plan.outputs:
        recording = record_activations(find_text_part(network))
    with recording as recorded:
        output = decoder.run(batch.inputs, layers=not _OF_LAYERS.isdisjoint(plan.outputs))
    outputs = {"step_mask": batch.mask}
    outputs |= _read_states(decoder, output, batch, plan, reading)
    inside = _read_inside(output, recorded, batch, plan)
    outputs |= {name: _spread(value, batch.mask) for name, value in inside.items()}
    hidden = output.hidden.flatten(0, 1)  # [rows x L, D]
    if Output.CONTEXT in plan.outputs:
        outputs["context"] = gather_context(hidden, batch.prompts)
    if Output.VALUES in plan.outputs:
        outputs["values"] = _spread(_apply(reading.heads, "values", _take(output.hidden, batch.places)), batch.mask)
    if Output.SCORES in plan.outputs:
        outputs["scores"] = _apply(reading.heads, "scores", hidden[batch.last])
    return outputs


def _read_states(
    decoder: Decoder, output: DecoderOutput, batch: TokenBatch, plan: ForwardPlan, reading: Reading
) -> dict[str, Tensor]:
    states = _take(output.states, batch.places)  # [S, ...]
    outputs: dict[str, Tensor] = {}
    own = {name: replace(one, states=one.states[batch.mask]) for name, one in reading.anchors.items()}
    options: dict[str, Any] = {"temperature": reading.temperature, "chunk": reading.chunk, "anchors": own}
    scored = score_steps(decoder, states, batch.targets, plan, **options)
    outputs |= {name: _spread(value, batch.mask) for name, value in scored.items()}
    if Output.STATES in plan.outputs:
        outputs["states"] = _spread(states, batch.mask)
    return outputs


def _read_inside(
    output: DecoderOutput, recorded: dict[str, Tensor], batch: TokenBatch, plan: ForwardPlan
) -> dict[str, Tensor]:
    """Reads [S, ...] tensors at the places that predict the scored steps."""
    inside: dict[str, Tensor] = {}
    if Output.HIDDEN in plan.outputs:
        inside["hidden"] = _take(output.hidden, batch.places)
    if Output.LAYERS in plan.outputs:
        inside["layers"] = torch.stack([_take(one, batch.places) for one in output.layers], dim=1)
    if Output.ACTIVATIONS in plan.outputs:
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
        raise ValueError(f"{name} planned, but no heads given")
    # Heads are float32 also under autocast: rewards differ by less than bfloat16 resolves.
    with torch.autocast(hidden.device.type, enabled=False):
        read: Tensor = heads[name](hidden.float())
    return read.squeeze(-1)
