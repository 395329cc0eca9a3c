"""What the processes of a run do together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate.utils import gather_object
from torch import Tensor

from mmalign.errors import DataError

SumOverProcesses = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes; every process gets the sum."""

Item = TypeVar("Item")


def count_and_mean(values: Tensor, sum_over_processes: SumOverProcesses) -> tuple[float, float]:
    """Counts and averages the values [n] of all processes, NaN left out; the mean of none is 0."""
    known = values[~values.isnan()].double()
    count, total = sum_over_processes(torch.stack([torch.ones_like(known).sum(), known.sum()])).tolist()
    return count, total / count if count else 0.0


def take_share(items: Sequence[Item], rank: int, processes: int, where: str) -> list[Item]:
    """Returns the part of `items` that belongs to process `rank`.

    Args:
        where: the setting that decides how many items there are, for the error.

    Raises:
        DataError: there are fewer items than processes.
    """
    if len(items) < processes:
        raise DataError(f"{where}: {len(items)} records cannot be shared by {processes} processes; give more")
    return list(items[rank::processes])


def gather_shares(items: Sequence[Item]) -> list[list[Item]]:
    """Lists the items of every process, by process, and every process gets all; alone, its own are all."""
    shares: list[list[Item]] = gather_object([list(items)])
    return shares


def list_following(shares: Sequence[Sequence[Item]], rank: int) -> list[Item]:
    """Lists, to every item of process `rank`, the one that came after it before `take_share` shared them out.

    The first one follows the last. Where a share has lost items, the next one that is left follows.
    """
    order = [
        (place, owner)
        for place in range(max(map(len, shares)))
        for owner, share in enumerate(shares)
        if place < len(share)
    ]
    following = zip(order, [*order[1:], *order[:1]], strict=True)
    return [shares[owner][place] for (_, own), (place, owner) in following if own == rank]
