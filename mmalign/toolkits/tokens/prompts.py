"""What a token network reads of a prompt: tokens, their positions, and media such as images and sounds.

An encoded prompt is a mapping of tensors:

- `prompt_ids` [P]: tokens; where the network puts an image or a sound, one placeholder for each place that it takes;
- `prompt_positions` [A, P]: only where the network counts positions otherwise than from 0 up, e.g. on A axes of images;
- `mark.NAME` [P]: a number for every token that the network reads as its argument NAME; 0 for tokens of responses;
- `media.NAME` [...]: what the network reads as its argument NAME; the first dimension counts images, patches or clips,
  in the order of their placeholders.

Shapes: P positions of a prompt, R of a response, N rows of L positions, A axes of positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

MARK, MEDIA = "mark.", "media."
"""What the names of such tensors begin with."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """An encoded prompt.

    Attributes:
        ids: [P].
        positions: [A, P].
        marks: [P] each, by the network's own name.
        media: by the network's own name.
    """

    ids: Tensor
    positions: Tensor
    marks: Mapping[str, Tensor] = field(default_factory=dict)
    media: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> Prompt:
        """Reads the tensors of an encoded prompt or response; others are left alone."""
        ids = tensors["prompt_ids"]
        positions = tensors.get("prompt_positions")
        marks, media = (
            {name.removeprefix(kind): value for name, value in tensors.items() if name.startswith(kind)}
            for kind in (MARK, MEDIA)
        )
        return cls(ids, torch.arange(len(ids))[None] if positions is None else positions, marks, media)

    @classmethod
    def of(cls, ids: Tensor) -> Prompt:
        """Returns a prompt of nothing but tokens [P]."""
        return cls.read({"prompt_ids": ids})

    @property
    def kind(self) -> tuple[str, ...]:
        """The names of its media."""
        return tuple(sorted(self.media))

    def with_axes(self, count: int) -> Prompt:
        """Returns this prompt with so many axes of positions: words stand at one place on all of them."""
        return self if len(self.positions) == count else replace(self, positions=self.positions.expand(count, -1))

    @property
    def next_position(self) -> int:
        """The position of the token that follows."""
        return int(self.positions.max()) + 1

    def equals(self, other: Prompt) -> bool:
        """Returns whether a network reads the same in both. Two images may have the same placeholders."""
        return (
            torch.equal(self.ids, other.ids)
            and _equal(self.media, other.media)
            and _equal(self.marks, other.marks)
            and torch.equal(self.positions, other.positions)
        )


def align_axes(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Gives all prompts as many axes of positions as the one with most."""
    count = max(len(prompt.positions) for prompt in prompts)
    return [prompt.with_axes(count) for prompt in prompts]


def first_of_kinds(prompts: Sequence[Prompt]) -> dict[tuple[str, ...], Prompt]:
    """Returns the first prompt of every kind that has media."""
    return {prompt.kind: prompt for prompt in reversed(prompts) if prompt.media}


def group_equal(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Lists the numbers of equal prompts, in the order in which each first comes."""
    groups: dict[tuple[Any, ...], list[list[int]]] = {}
    found: list[list[int]] = []
    sums: dict[int, float] = {}
    for number, prompt in enumerate(prompts):
        # Where all ask the same about another image, comparing each pair of images would take longer than the pass.
        sketch = [_sum(value, sums) for _, value in sorted(prompt.media.items())]
        alike = groups.setdefault((tuple(prompt.ids.tolist()), *sketch), [])
        group = next((one for one in alike if prompts[one[0]].equals(prompt)), None)
        if group is None:
            group = []
            alike.append(group)
            found.append(group)
        group.append(number)
    return found


def join_media(prompts: Iterable[Prompt]) -> dict[str, Tensor]:
    """Joins the media of prompts along their first dimension, others filled up with zeros as processors do."""
    pieces: dict[str, list[Tensor]] = {}
    for prompt in prompts:
        for name, value in prompt.media.items():
            pieces.setdefault(name, []).append(value)
    return {name: _join(values) for name, values in pieces.items()}


def pad_rows(
    prompts: Sequence[Prompt], responses: Sequence[Tensor], pad_id: int, side: Literal["left", "right"]
) -> dict[str, Tensor]:
    """Pads prompts, each with its response after it, to what a network reads.

    Args:
        responses: token ids [R] of each; empty for prompts alone.

    Returns:
        `input_ids` and `attention_mask` [N, L]; `position_ids` [N, L], or [A, N, L] with A above 1; marks and media.
    """
    prompts = align_axes(prompts)
    rows = [torch.cat([prompt.ids, own]) for prompt, own in zip(prompts, responses, strict=True)]
    mask = _pad([torch.ones_like(row) for row in rows], side)
    positions = [_go_on(prompt, len(own)) for prompt, own in zip(prompts, responses, strict=True)]
    padded = [_pad([axes[axis] for axes in positions], side) for axis in range(len(positions[0]))]
    marks = {
        name: _pad([mark_row(prompt, name, len(own)) for prompt, own in zip(prompts, responses, strict=True)], side)
        for name in mark_names(prompts)
    }
    return {
        "input_ids": _pad(rows, side, pad_id),
        "attention_mask": mask,
        "position_ids": torch.stack(padded) if len(padded) > 1 else padded[0],
        **marks,
        **join_media(prompts),
    }


def mark_names(prompts: Iterable[Prompt]) -> list[str]:
    """Lists the marks that any of the prompts has."""
    return sorted({name for prompt in prompts for name in prompt.marks})


def mark_row(prompt: Prompt, name: str, steps: int) -> Tensor:
    """Returns a mark of a prompt and of so many tokens after it: [P + steps]; 0 for prompts without it."""
    mark = prompt.marks.get(name, torch.zeros_like(prompt.ids))
    return pad(mark, (0, steps))


def _go_on(prompt: Prompt, steps: int) -> Tensor:
    """Returns the positions of a prompt and of so many tokens after it: [A, P + steps]."""
    start = prompt.next_position
    after = torch.arange(start, start + steps).expand(len(prompt.positions), -1)
    return torch.cat([prompt.positions, after], dim=1)


def _pad(rows: Sequence[Tensor], side: Literal["left", "right"], value: int = 0) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=value, padding_side=side)


def _equal(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    # Responses to one prompt mostly share the very same tensors.
    return own.keys() == other.keys() and all(
        value is other[name] or torch.equal(value, other[name]) for name, value in own.items()
    )


def _sum(value: Tensor, known: dict[int, float]) -> float:
    """Adds up about a thousand places of a tensor, once for each."""
    if id(value) not in known:
        known[id(value)] = float(value.flatten()[:: 1 + value.numel() // 1024].sum())
    return known[id(value)]


def _join(values: Sequence[Tensor]) -> Tensor:
    if len({value.shape[1:] for value in values}) > 1:
        largest = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
        values = [_enlarge(value, largest) for value in values]
    return torch.cat(list(values))


def _enlarge(value: Tensor, sizes: Sequence[int]) -> Tensor:
    missing = [size - own for size, own in zip(sizes, value.shape[1:], strict=True)]
    return pad(value, [width for added in reversed(missing) for width in (0, added)])
