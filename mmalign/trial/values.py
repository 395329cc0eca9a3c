"""Made-up quantities of a small batch: everything that the engine itself would fill in.

Sizes differ from each other, so that a wrong axis shows: 2 prompts, 3 pairs, up to 4 steps, 5 responses. A padded step
is NaN, because a loss must not look at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmalign.contract.batch import Batch, build_batch
from mmalign.contract.forward_plan import Divergence
from mmalign.contract.values import EncodedResponse
from mmalign.data.records import Record

LENGTHS = (4, 2, 3, 1, 4)
SIZES = {"N": 5, "M": 3, "P": 2, "T": 4, "2": 2, "D": 240, "L": 2, "A": 2, "C": 3, "K": 2}
"""How long each axis is; 240 is divided by most numbers of attention heads."""


@dataclass
class TrialSizes:
    """How long the axes of each quantity are.

    Attributes:
        own: lengths of the open axes of single quantities, by name; others are as in `SIZES`.
    """

    own: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def shape(self, name: str, axes: str) -> tuple[int, ...]:
        """The shape of a made-up quantity."""
        known = self.own.get(name, ())
        shape = [SIZES.get(axis, 2) for axis in axes]
        for place, axis in enumerate(axes):
            if axis not in "NMPT2" and place < len(known):
                shape[place] = known[place]
        return tuple(shape)


def build_trial_batch() -> Batch:
    """Builds a batch of made-up records with all kinds of plain feedback."""
    records = [_record("a", 2, [(0, 1)]), _record("b", 3, [(0, 1), (2, 0)])]
    steps = iter(LENGTHS)
    encoded = [[EncodedResponse({}, (size := next(steps)), size) for _ in one.responses] for one in records]
    batch = build_batch(records, encoded, targets_only=False)
    marks = torch.arange(5) % 2 == 0
    values = {
        "pair_strength": torch.tensor([1.0, 0.5, 2.0]),
        "labels": marks.float(),
        "labelled": torch.ones_like(marks),
        "targets": marks,
        "ratings": marks.float(),
        "ranks": torch.tensor([1.0, 2.0, 1.0, 2.0, 3.0]),
    }
    return batch.with_quantities(values, {})


def _record(name: str, count: int, pairs: Sequence[tuple[int, int]]) -> Record:
    plain = Record.from_text(f"Question {name}?", [f"Answer {index}." for index in range(count)], id=name).to_dict()
    labels = [{"kind": "pair", "order": [[f"r{better}"], [f"r{worse}"]]} for better, worse in pairs]
    return Record.from_dict({**plain, "labels": labels})


def make_value(name: str, axes: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Makes up a quantity that the engine fills in, or one of which nothing is known but its axes."""
    generator = torch.Generator().manual_seed(_number(name) + 7919 * seed)
    if axes == "MI":
        return torch.tensor([0, 2, 3])
    if name in ("sampled", "stored"):
        return (torch.arange(5) < 4) == (name == "sampled")
    noise = torch.rand(shape, generator=generator)
    if name.endswith("logps"):
        value = -0.1 - 2 * noise
    elif name.endswith(tuple(f"_{kind.value}" for kind in Divergence)) or name == "entropy":
        value = 0.1 + noise
    elif name in ("rewards", "composite_rewards"):
        value = noise.masked_fill((torch.arange(5) == 4).reshape(-1, *[1] * (noise.dim() - 1)), torch.nan)
    else:
        value = 2 * noise - 1
    return _pad(value) if axes.startswith("NT") else value


def make_plain(shape: tuple[int, ...]) -> Tensor:
    """Makes up numbers of records: 0 and 1 in turn, which are also labels, levels, counts and probabilities."""
    return (
        (torch.arange(shape[0] if shape else 1) % 2).float().reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()
    )


def _pad(value: Tensor) -> Tensor:
    """Puts NaN where a response has no step any more."""
    ended = torch.arange(value.shape[1]) >= torch.tensor(LENGTHS)[:, None]
    return value.masked_fill(ended.reshape(*ended.shape, *[1] * (value.dim() - 2)), torch.nan)


def _number(name: str) -> int:
    return sum((place + 1) * ord(letter) for place, letter in enumerate(name))
