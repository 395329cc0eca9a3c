"""A batch: encoded responses of some prompts with their quantities, and how it is cut into micro-batches.

N responses are flattened over P prompts. Every quantity keeps its axes in letters (`N`, `NT`, `NTD`, `NK`, `M`, `MT`,
`M2`, `P`, or empty for a scalar), so that cutting a batch needs no knowledge of what a quantity means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan

import torch
from torch import Tensor

from mmalign.contract.values import EncodedResponse
from mmalign.data.records import Label, Record

DATA_AXES = {
    "lengths": "N",
    "step_mask": "NT",
    "labels": "N",
    "labelled": "N",
    "targets": "N",
    "ratings": "N",
    "ranks": "N",
    "prompt_index": "N",
    "pairs": "M2",
    "pair_strength": "M",
}
"""Quantities that every batch has: they come from the records and their encoding."""

ROLLOUT_AXES = {"behaviour_logps": "NT", "sampled": "N", "stored": "N"}
"""Quantities that a batch of rollouts has, too: they come from the collector."""


@dataclass(frozen=True)
class Batch:
    """Responses with their quantities.

    Attributes:
        records: P records.
        responses: N encoded responses; `quantities["prompt_index"]` says which record each answers.
        quantities: tensors on the CPU or on the model's device.
        axes: the axes of every quantity.
        whole_prompts: an objective compares all responses to a prompt, so micro-batches must not part them.
        measurements: numbers about responses [N] for the log, NaN where there is none; see `Modality.augment`.
        encode: of the modality: a record to its encoded responses. There while quantities of the stage `data` are
            computed, for those that have to know where in a response something stands.
    """

    records: tuple[Record, ...]
    responses: tuple[EncodedResponse, ...]
    quantities: Mapping[str, Tensor]
    axes: Mapping[str, str]
    whole_prompts: bool = False
    measurements: Mapping[str, Tensor] = field(default_factory=dict)
    encode: Callable[[Record], Sequence[EncodedResponse]] | None = None

    def __len__(self) -> int:
        return len(self.responses)

    def comparisons(self) -> list[tuple[Record, str, str, Label]]:
        """Lists what `pairs` compares: (record, chosen item, rejected item, label), in its order.

        That is its order while quantities of the stage `data` are computed, when no pair has been left out yet.
        """
        plain = [
            (record, record.responses[chosen].rid, record.responses[rejected].rid, label)
            for record in self.records
            for chosen, rejected, label in record.comparisons()
        ]
        return plain + [(record, *compared) for record in self.records for compared in record.variant_comparisons()]

    def with_quantities(self, values: Mapping[str, Tensor], axes: Mapping[str, str]) -> Batch:
        """Returns this batch with more quantities."""
        return replace(self, quantities={**self.quantities, **values}, axes={**self.axes, **axes})

    def to(self, device: torch.device) -> Batch:
        """Returns this batch with its quantities on `device`; encoded responses stay on the CPU."""
        return replace(self, quantities={name: value.to(device) for name, value in self.quantities.items()})

    def select(self, rows: Sequence[int]) -> Batch:
        """Returns the responses `rows` (ascending); pairs are kept where both their responses are."""
        responses = tuple(self.responses[row] for row in rows)
        steps = max(response.steps for response in responses)
        index = torch.tensor(rows)
        position = torch.full((len(self) + 1,), -1, dtype=torch.long)  # the last place is that of the row -1
        position[index] = torch.arange(len(rows))
        moved = _move(self.quantities["pairs"], position)
        kept = (moved >= 0).all(dim=1).nonzero().flatten().cpu()
        values = {name: _take(value, self.axes[name], index, kept, steps) for name, value in self.quantities.items()}
        for name, axes in self.axes.items():
            if name == "pairs" or axes == "MI":
                values[name] = _move(values[name], position)
        return replace(self, responses=responses, quantities=values)

    def micro_batches(self, size: int, positions: int | None = None) -> list[Batch]:
        """Cuts the batch into parts of about `size` responses and `positions` positions."""
        return [self.select(rows) for rows in self.micro_batch_rows(size, positions)]

    def micro_batch_rows(self, size: int, positions: int | None = None) -> list[list[int]]:
        """Lists the rows of every micro-batch, ascending; what is compared is never torn apart: a pair, or with
        `whole_prompts` all responses to a prompt.

        Responses to one prompt stay together, so that it need not be computed again, and prompts of similar size, so
        that little is padded. The result of a step does not depend on it.
        """
        parts: list[list[int]] = [[]]
        for rows in sorted(self._coupled_rows(), key=self._nearness):
            longer = [*parts[-1], *rows]
            too_many = positions is not None and self._count_positions(longer) > positions
            if parts[-1] and (len(longer) > size or too_many):
                parts.append(list(rows))
            else:
                parts[-1] = longer
        return [sorted(part) for part in parts if part]

    def _count_positions(self, rows: Sequence[int]) -> int:
        """Counts what a packed forward pass computes: a prompt once for all of its responses."""
        prompts = self.quantities["prompt_index"][list(rows)].tolist()
        # A companion may have a longer prompt than the other responses of its record.
        shared = {(prompt, self.responses[row].shared) for prompt, row in zip(prompts, rows, strict=True)}
        return sum(size for _, size in shared) + sum(
            self.responses[row].size - self.responses[row].shared for row in rows
        )

    def _nearness(self, rows: Sequence[int]) -> tuple[int, int, int]:
        """Sorts prompts by falling size, and what shares a prompt side by side."""
        responses = [self.responses[row] for row in rows]
        prompt = int(self.quantities["prompt_index"][rows[0]])
        return -max(response.shared for response in responses), prompt, -max(response.size for response in responses)

    def _coupled_rows(self) -> list[list[int]]:
        if self.whole_prompts:
            group = [int(prompt) for prompt in self.quantities["prompt_index"].tolist()]
        else:
            group = list(range(len(self)))
        for one, other in self._linked_rows():
            low, high = sorted((group[one], group[other]))
            group = [low if label == high else label for label in group]
        members: dict[int, list[int]] = {}
        for row, label in enumerate(group):
            members.setdefault(label, []).append(row)
        return list(members.values())

    def _linked_rows(self) -> list[tuple[int, int]]:
        """Lists (chosen, rejected) of every pair, and (chosen, companion)."""
        pairs = self.quantities["pairs"].tolist()
        companions = [self.quantities[name].tolist() for name, axes in self.axes.items() if axes == "MI"]
        links = [(chosen, rejected) for chosen, rejected in pairs]
        return links + [
            (pair[0], row) for rows in companions for pair, row in zip(pairs, rows, strict=True) if row >= 0
        ]


def build_batch(
    records: Sequence[Record],
    encoded: Sequence[Sequence[EncodedResponse]],
    *,
    targets_only: bool,
    whole_prompts: bool = False,
) -> Batch:
    """Flattens records and their encoded responses into a batch with the quantities of `DATA_AXES`.

    Args:
        records: P records.
        encoded: for every record its encoded responses, in the order of `record.responses`.
        targets_only: leave out responses that no supervised objective would train on.
        whole_prompts: see `Batch`.
    """
    responses: list[EncodedResponse] = []
    columns: dict[str, list[float]] = {name: [] for name in ("labels", "targets", "ratings", "ranks", "prompt_index")}
    pairs: list[tuple[int, int]] = []
    strengths: list[float] = []
    for prompt, (record, own) in enumerate(zip(records, encoded, strict=True)):
        targets = record.targets()
        kept = [row for row in range(len(own)) if targets[row] or not targets_only]
        place = {row: len(responses) + position for position, row in enumerate(kept)}
        responses.extend(own[row] for row in kept)
        prompts = [float(prompt)] * len(own)
        feedback: list[Sequence[float]] = [record.response_labels(), targets, record.ratings(), record.ranks(), prompts]
        for name, values in zip(columns, feedback, strict=True):
            columns[name].extend(values[row] for row in kept)
        for chosen, rejected, strength in record.pair_indices():
            if chosen in place and rejected in place:
                pairs.append((place[chosen], place[rejected]))
                strengths.append(strength)
    quantities = _data_quantities(responses, columns, pairs, strengths)
    return Batch(tuple(records), tuple(responses), quantities, DATA_AXES, whole_prompts)


def _data_quantities(
    responses: Sequence[EncodedResponse],
    columns: Mapping[str, Sequence[float]],
    pairs: Sequence[tuple[int, int]],
    strengths: Sequence[float],
) -> dict[str, Tensor]:
    lengths = torch.tensor([response.steps for response in responses])
    horizon = int(lengths.max()) if len(responses) else 0
    return {
        "lengths": lengths,
        "step_mask": torch.arange(horizon) < lengths[:, None],  # [N, T]
        "labels": torch.nan_to_num(torch.tensor(columns["labels"], dtype=torch.float32)),
        "labelled": torch.tensor([not isnan(label) for label in columns["labels"]], dtype=torch.bool),
        "targets": torch.tensor(columns["targets"], dtype=torch.bool),
        "ratings": torch.tensor(columns["ratings"], dtype=torch.float32),
        "ranks": torch.tensor(columns["ranks"], dtype=torch.float32),
        "prompt_index": torch.tensor(columns["prompt_index"], dtype=torch.long),
        "pairs": torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        "pair_strength": torch.tensor(strengths, dtype=torch.float32),
    }


def _move(rows: Tensor, position: Tensor) -> Tensor:
    return position.to(rows.device)[rows]


def _take(value: Tensor, axes: str, rows: Tensor, pairs: Tensor, steps: int) -> Tensor:
    if not axes.startswith(("N", "M")):
        return value
    value = value[(rows if axes.startswith("N") else pairs).to(value.device)]
    return value[:, :steps] if axes[1:2] == "T" else value
