"""Packing: many responses in one row without padding, a prompt computed once for all of its responses.

A row is prompt, response, response, ..., prompt, response, ...; every response attends to its own prompt and to itself,
with positions that go on from the prompt's end. Everything but attention works token by token; `packed_attention` has
the attention. Images and sounds of a prompt belong to it: they are read once, too.

Shapes: L positions of the row, N responses, A axes of positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign.toolkits.tokens.prompts import Prompt, align_axes, group_equal, mark_names, mark_row

TILE = 256
"""Queries of a segment. Scores of one segment exist at a time, so long texts need no memory in their length squared."""


@dataclass(frozen=True)
class Segment:
    """Positions `start` to `stop` of a row, and what they attend to: a prompt, then `first` up to themselves.

    Attributes:
        first: where the prompt or response begins that this is a piece of.
        prompt: from where to where the prompt of a response is; empty for a piece of a prompt.
    """

    start: int
    stop: int
    first: int
    prompt: tuple[int, int] = (0, 0)

    @property
    def keys(self) -> int:
        """How many positions its last one attends to."""
        return self.stop - self.first + self.prompt[1] - self.prompt[0]


@dataclass(frozen=True, eq=False)
class PackedLayout:
    """Who attends to whom in a row, twice: by segments, and by position.

    Attributes:
        segments: they cover the row.
        group: [L], the number of the prompt that a position belongs to.
        branch: [L], the number of the response that it belongs to, -1 in a prompt.
    """

    segments: tuple[Segment, ...]
    group: Tensor
    branch: Tensor

    def to(self, device: torch.device) -> PackedLayout:
        """Returns this layout on `device`."""
        return PackedLayout(self.segments, self.group.to(device), self.branch.to(device))


@dataclass(frozen=True)
class PackedRow:
    """Token ids of a row and where each response is in it.

    Attributes:
        ids: [L].
        positions: [A, L], position ids.
        marks: [L] each, by the network's own name.
        layout: for attention.
        prompts: those of the row, in their order, each once.
        prompt_ends: [N], the position of the last prompt token of each response.
        starts: [N], the position of each response's first token.
    """

    ids: Tensor
    positions: Tensor
    marks: Mapping[str, Tensor]
    layout: PackedLayout
    prompts: tuple[Prompt, ...]
    prompt_ends: Tensor
    starts: Tensor


def pack(prompts: Sequence[Prompt], responses: Sequence[Tensor]) -> PackedRow:
    """Packs N responses; equal prompts are put into the row once.

    Args:
        prompts: N prompts of at least one token each.
        responses: N responses, token ids, at least one token each.
    """
    prompts = align_axes(prompts)
    groups = group_equal(prompts)
    row = _Row(mark_names(prompts))
    starts, ends = [0] * len(prompts), [0] * len(prompts)
    for group, numbers in enumerate(groups):
        span = row.append_prompt(prompts[numbers[0]], group)
        for number in numbers:
            starts[number] = row.append_response(responses[number], prompts[number], span, group, number)
            ends[number] = span[1] - 1
    distinct = tuple(prompts[numbers[0]] for numbers in groups)
    return row.build(distinct, torch.tensor(ends), torch.tensor(starts))


def pack_prompts(prompts: Sequence[Prompt]) -> PackedRow:
    """Packs prompts alone, each by itself, equal ones too."""
    prompts = align_axes(prompts)
    row = _Row(mark_names(prompts))
    spans = [row.append_prompt(prompt, group) for group, prompt in enumerate(prompts)]
    ends = torch.tensor([stop - 1 for _, stop in spans])
    return row.build(tuple(prompts), ends, ends + 1)


class _Row:
    """A row in the making: the columns of its prompts and responses so far."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._ids: list[Tensor] = []
        self._positions: list[Tensor] = []
        self._marks: dict[str, list[Tensor]] = {name: [] for name in marks}
        self._groups: list[Tensor] = []
        self._branches: list[Tensor] = []
        self._segments: list[Segment] = []
        self._length = 0

    def append_prompt(self, prompt: Prompt, group: int) -> tuple[int, int]:
        """Appends a prompt; returns where it is."""
        for name, pieces in self._marks.items():
            pieces.append(mark_row(prompt, name, 0))
        start = self._append(prompt.ids, prompt.positions, group)
        return start, self._length

    def append_response(self, response: Tensor, prompt: Prompt, span: tuple[int, int], group: int, branch: int) -> int:
        """Appends a response to the prompt at `span`; returns where it begins."""
        for pieces in self._marks.values():
            pieces.append(torch.zeros_like(response))
        first = prompt.next_position
        positions = torch.arange(first, first + len(response)).expand(len(prompt.positions), -1)
        return self._append(response, positions, group, branch, span)

    def _append(
        self, ids: Tensor, positions: Tensor, group: int, branch: int = -1, prompt: tuple[int, int] = (0, 0)
    ) -> int:
        start, stop = self._length, self._length + len(ids)
        self._ids.append(ids)
        self._positions.append(positions)
        self._groups.append(torch.full((len(ids),), group))
        self._branches.append(torch.full((len(ids),), branch))
        self._segments += [
            Segment(begin, min(begin + TILE, stop), first=start, prompt=prompt) for begin in range(start, stop, TILE)
        ]
        self._length = stop
        return start

    def build(self, prompts: tuple[Prompt, ...], ends: Tensor, starts: Tensor) -> PackedRow:
        """Returns the row of what has been appended."""
        marks = {name: torch.cat(pieces) for name, pieces in self._marks.items()}
        layout = PackedLayout(tuple(self._segments), torch.cat(self._groups), torch.cat(self._branches))
        positions = torch.cat(self._positions, dim=1)
        return PackedRow(torch.cat(self._ids), positions, marks, layout, prompts, ends, starts)
