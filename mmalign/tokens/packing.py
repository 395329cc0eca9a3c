"""Packing: many responses in one row without padding, a prompt computed once for all of its responses.

A row is prompt, response, response, ..., prompt, response, ...; every response attends to its own prompt and to itself,
with positions that go on from the prompt's end. Everything but attention works token by token; `packed_attention` has
the attention.

Shapes: L positions of the row, N responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    for number, prompt in enumerate(prompts):
        members.setdefault(tuple(prompt.tolist()), []).append(number)
    row = _Row()
    spans = [(0, 0)] * len(prompts)
    ends = [0] * len(prompts)
    for group, numbers in enumerate(members.values()):
        prompt = prompts[numbers[0]]
        shared = row.append(prompt, group)
        for number in numbers:
            spans[number] = row.append(responses[number], group, number, offset=len(prompt), prompt=shared)
            ends[number] = shared[1] - 1
    return PackedRow(
        ids=torch.cat(row.pieces),
        positions=torch.cat(row.positions),
        layout=row.layout(),
        prompt_ends=torch.tensor(ends),
        starts=torch.tensor([start for start, _ in spans]),
    )


def pack_texts(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor, PackedLayout]:
    """Packs texts that share nothing: their ids [L], positions [L], and layout."""
    row = _Row()
    for group, text in enumerate(texts):
        row.append(text, group)
    return torch.cat(row.pieces), torch.cat(row.positions), row.layout()


class _Row:
    """A row in the making: the columns of its prompts and responses so far."""

    def __init__(self) -> None:
        self.pieces: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.groups: list[Tensor] = []
        self.branches: list[Tensor] = []
        self.segments: list[Segment] = []
        self._length = 0

    def append(
        self, piece: Tensor, group: int, branch: int = -1, *, offset: int = 0, prompt: tuple[int, int] = (0, 0)
    ) -> tuple[int, int]:
        """Appends a prompt or response, whose positions start at `offset`; returns where it is."""
        start, stop = self._length, self._length + len(piece)
        self.pieces.append(piece)
        self.positions.append(torch.arange(offset, offset + len(piece)))
        self.groups.append(torch.full((len(piece),), group))
        self.branches.append(torch.full((len(piece),), branch))
        self.segments += [
            Segment(begin, min(begin + TILE, stop), first=start, prompt=prompt) for begin in range(start, stop, TILE)
        ]
        self._length = stop
        return start, stop

    def layout(self) -> PackedLayout:
        """Returns the layout of what has been appended."""
        return PackedLayout(tuple(self.segments), torch.cat(self.groups), torch.cat(self.branches))
