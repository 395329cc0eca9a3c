"""What is computed from records alone, before any model runs: quantities of the stage `data`, companions, item pairs.

A companion is a response that a pair is scored with beside its own two, e.g. a gold answer or an explanation.

A plugin registers a quantity of the stage `companion` named `ROLE_row`. Its function says for every pair which record,
with which prompt and first response, plays the role; that response becomes a row of the batch like any other, or is the
row that already holds it. Objectives then need `policy_ROLE_mean_logps` and the like.

A label may also compare responses under other prompts (items `rid@vid`); they become rows and pairs likewise.

A row that was added counts for no other objective: its numbers are NaN, its marks False. Such a pair has no companions;
quantities of pairs [M] are computed when all pairs are there, so they are known of it as of any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmalign.contract.batch import Batch
from mmalign.contract.provider import Provider
from mmalign.contract.quantities import Plan
from mmalign.contract.values import EncodedResponse
from mmalign.data.records import Record
from mmalign.errors import PluginError

Encode = Callable[[Record], Sequence[EncodedResponse]]


def add_record_quantities(batch: Batch, plan: Plan, encode: Encode) -> Batch:
    """Adds, in order, the planned quantities that plugins compute from the records, then companions and item pairs.

    Args:
        batch: all responses of its records, unless nothing that is planned is about pairs.
        encode: of the modality; returns the encoded responses of a record.
    """
    of_pairs = _find_pair_quantities(plan)
    batch = _compute(batch, [one for one in plan.computed("data") if one not in of_pairs], encode)
    if "pairs" not in plan and not of_pairs:
        return batch
    rows = _Rows(batch, encode)
    device = batch.quantities["lengths"].device
    roles = {role.name: _find_companions(batch, role, rows).to(device) for role in plan.computed("companion")}
    compared = _find_item_pairs(batch, rows)
    batch = _append_responses(batch, rows.added, rows.prompts)
    batch = _append_pairs(batch.with_quantities(roles, dict.fromkeys(roles, "MI")), compared)
    return _compute(batch, of_pairs, encode)


def _find_pair_quantities(plan: Plan) -> list[Provider]:
    """Lists what is computed once all pairs are there: quantities of pairs, and those that need one."""
    late = {"pairs", "pair_strength"}
    found = []
    for provider in plan.computed("data"):
        if provider.axes.startswith("M") or not late.isdisjoint(provider.needs):
            found.append(provider)
            late.add(provider.name)
    return found


def _compute(batch: Batch, providers: Sequence[Provider], encode: Encode) -> Batch:
    for provider in providers:
        value = provider.call(batch.quantities, batch=replace(batch, encode=encode))
        check_axes(provider, value, batch)
        value = value.to(batch.quantities["lengths"].device)
        batch = batch.with_quantities({provider.name: value}, {provider.name: provider.axes})
    return batch


def check_axes(provider: Provider, value: Any, batch: Batch) -> None:
    """Checks that a plugin's quantity is a tensor with as many rows as its axes say.

    Raises:
        PluginError: it is not.
    """
    rows = {"N": len(batch), "M": len(batch.quantities["pairs"])}.get(provider.axes[:1])
    if not isinstance(value, torch.Tensor):
        raise PluginError(f"{provider.part} ({provider.origin}) is {type(value).__name__}; expected a tensor")
    if value.dim() != len(provider.axes) or (rows is not None and len(value) != rows):
        expected = f" with {provider.axes[0]} = {rows}" if rows is not None else ""
        raise PluginError(
            f"{provider.part} ({provider.origin}) has shape {tuple(value.shape)}; announced is "
            f"[{', '.join(provider.axes)}]{expected}"
        )


class _Rows:
    """The rows of a batch by what is in them, and those that are added."""

    def __init__(self, batch: Batch, encode: Encode) -> None:
        self._encode = encode
        self._count = len(batch)
        self.added: list[EncodedResponse] = []
        self.prompts: list[int] = []
        own = [
            (prompt, record.prompt, response.messages)
            for prompt, record in enumerate(batch.records)
            for response in record.responses
        ]
        self._places: dict[Any, int] = {key: row for row, key in reversed(list(enumerate(own)))}

    def find(self, prompt: int, companion: Record | None) -> int:
        if companion is None:
            return -1
        key = (prompt, companion.prompt, companion.responses[0].messages)
        if key not in self._places:
            self._places[key] = self._count + len(self.added)
            self.added.append(self._encode(companion)[0])
            self.prompts.append(prompt)
        return self._places[key]


def _find_companions(batch: Batch, role: Provider, rows: _Rows) -> Tensor:
    """Finds the row of every pair that plays a role: [M], -1 where none does."""
    found = [
        rows.find(prompt, role.call({}, record=record, chosen=chosen, rejected=rejected))
        for prompt, record in enumerate(batch.records)
        for chosen, rejected, _ in record.pair_indices()
    ]
    return torch.tensor(found, dtype=torch.long)


def _find_item_pairs(batch: Batch, rows: _Rows) -> list[tuple[int, int, float]]:
    """Finds (chosen, rejected, strength or NaN) of what labels say about responses under other prompts."""
    return [
        (
            rows.find(prompt, record.item_record(better)),
            rows.find(prompt, record.item_record(worse)),
            nan if label.strength is None else label.strength,
        )
        for prompt, record in enumerate(batch.records)
        for better, worse, label in record.variant_comparisons()
    ]


def _append_responses(batch: Batch, added: Sequence[EncodedResponse], prompts: Sequence[int]) -> Batch:
    if not added:
        return batch
    responses = (*batch.responses, *added)
    steps = max(response.steps for response in responses)
    device = batch.quantities["lengths"].device
    lengths = torch.tensor([response.steps for response in responses], device=device)
    values = {
        name: _append(value, batch.axes[name], len(added), steps) if batch.axes[name].startswith("N") else value
        for name, value in batch.quantities.items()
    }
    values["prompt_index"][len(batch) :] = torch.tensor(prompts, device=device)
    values |= {"lengths": lengths, "step_mask": torch.arange(steps, device=device) < lengths[:, None]}
    return replace(batch, responses=responses, quantities=values)


def _append(value: Tensor, axes: str, count: int, steps: int = 0) -> Tensor:
    fill = nan if value.is_floating_point() else -1 if axes == "MI" else 0
    if axes == "NT":
        value = pad(value, (0, steps - value.shape[1]), value=fill)
    return torch.cat([value, value.new_full((count, *value.shape[1:]), fill)])


def _append_pairs(batch: Batch, compared: Sequence[tuple[int, int, float]]) -> Batch:
    if not compared:
        return batch
    device = batch.quantities["pairs"].device
    values = {
        name: _append(value, batch.axes[name], len(compared)) if batch.axes[name].startswith("M") else value
        for name, value in batch.quantities.items()
    }
    values["pairs"][-len(compared) :] = torch.tensor([pair[:2] for pair in compared], device=device)
    values["pair_strength"][-len(compared) :] = torch.tensor([pair[2] for pair in compared], device=device)
    return replace(batch, quantities=values)
