"""Lists: flat quantities of responses [N], turned into one padded row a prompt [P, K].

Losses that compare all responses to a prompt are maths on such rows; this is the only place that makes them. A row
holds the responses in the order of the data. What does not count is padding like any other: it is 0 and gets no
gradient, whatever it held.

Shapes: P prompts in ascending order of their index, K responses of the largest list.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmalign_objectives.support.shapes import check_shapes


@dataclass(frozen=True)
class Lists:
    """Where every response stands.

    Attributes:
        rows: [N], the row of each response.
        columns: [N], its column.
        counted: [N] bool, responses that take part.
        mask: [P, K] bool, places that are taken by those.
    """

    rows: Tensor
    columns: Tensor
    counted: Tensor
    mask: Tensor

    def pad(self, values: Tensor) -> Tensor:
        """Puts values [N, ...] into rows [P, K, ...], differentiably; 0 where the mask is False."""
        check_shapes(1, counted=self.counted, values=values.flatten(1)[:, 0] if values.dim() > 1 else values)
        kept = torch.where(self.counted.reshape(-1, *[1] * (values.dim() - 1)), values, 0)
        empty = values.new_zeros(*self.mask.shape, *values.shape[1:])
        return empty.index_put((self.rows, self.columns), kept)


def group_lists(prompt_index: Tensor, counted: Tensor) -> Lists:
    """Finds the place of every response.

    Args:
        prompt_index: [N], which prompt a response answers.
        counted: [N] bool, responses that take part; the prompt of one that does not keeps its row.

    >>> group_lists(torch.tensor([4, 2, 4]), torch.tensor([True, True, False])).mask
    tensor([[ True, False],
            [ True, False]])
    """
    check_shapes(1, prompt_index=prompt_index, counted=counted)
    _, rows, sizes = torch.unique(prompt_index, return_inverse=True, return_counts=True)
    order = rows.argsort(stable=True)
    starts = sizes.cumsum(0) - sizes
    columns = torch.empty_like(rows)
    columns[order] = torch.arange(len(rows), device=rows.device) - starts[rows[order]]
    mask = torch.zeros(len(sizes), int(sizes.max()), dtype=torch.bool, device=rows.device)
    return Lists(rows, columns, counted, mask.index_put((rows, columns), counted))


def order_best_first(grades: Tensor, mask: Tensor) -> Tensor:
    """Sorts every row by falling grade: [P, K] column indices; ties keep their order, padding comes last."""
    return grades.masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True, stable=True)


def mark_better(grades: Tensor, mask: Tensor) -> Tensor:
    """Marks at [p, i, j] that i has a higher grade than j, both counted: [P, K, K] bool."""
    return (grades[:, :, None] > grades[:, None, :]) & mask[:, :, None] & mask[:, None, :]


def differences(values: Tensor) -> Tensor:
    """Subtracts value j from value i at [p, i, j]: [P, K] to [P, K, K]."""
    return values[:, :, None] - values[:, None, :]


def ranking_metrics(rewards: Tensor, grades: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Describes how lists are ranked.

    Args:
        rewards: [P, K], what the loss takes for the reward of a response.
        grades: [P, K].
        mask: [P, K] bool.

    Returns:
        detached [P] tensors: `reward_margins`, the mean margin over all (better, worse), and `reward_accuracies`, the
        share of them that the rewards order alike, a tie counting one half; 0 where no grades differ.
    """
    better, margins = mark_better(grades, mask), differences(rewards.detach())
    count = better.sum(dim=(1, 2)).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(better, values, 0).sum(dim=(1, 2)) / count

    return {"reward_margins": mean(margins), "reward_accuracies": mean((margins.sign() + 1) / 2)}
