"""What the processes of a run do together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from mmalign.errors import DataError

if TYPE_CHECKING:
    from accelerate import Accelerator

SumOverProcesses = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes; every process gets the sum."""

Item = TypeVar("Item")

_BUCKET = 1 << 24
"""Elements of gradients that travel together."""


def is_main_process() -> bool:
    """Returns whether this process writes for all, by what its launcher has said; usable before anything is loaded."""
    return os.environ.get("RANK", "0") == "0"


def count_and_mean(values: Tensor, sum_over_processes: SumOverProcesses) -> tuple[float, float]:
    """Counts and averages the values [n] of all processes, NaN left out; the mean of none is 0."""
    known = values[~values.isnan()].double()
    count, total = sum_over_processes(torch.stack([torch.ones_like(known).sum(), known.sum()])).tolist()
    return count, total / count if count else 0.0


def shard(items: Sequence[Item], rank: int, processes: int, where: str) -> list[Item]:
    """Returns the part of `items` that belongs to process `rank`.

    Args:
        where: the setting that decides how many items there are, for the error.

    Raises:
        DataError: there are fewer items than processes.
    """
    if len(items) < processes:
        raise DataError(f"{where}: {len(items)} records cannot be shared by {processes} processes; give more")
    return list(items[rank::processes])


def find_largest(values: Sequence[float], accelerator: Accelerator) -> list[float]:
    """Returns for each value the largest of all processes; every process gets the same, so that they decide alike."""
    if accelerator.num_processes == 1:
        return list(values)
    own = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    everyone = accelerator.gather(own).reshape(accelerator.num_processes, len(values))
    return [float(value) for value in everyone.amax(dim=0)]


def sum_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Adds the gradients of all processes up, in place; a parameter that no process has used stays without one."""
    if accelerator.num_processes == 1:
        return
    used = [float(one.grad is not None) for one in parameters]
    for parts in _buckets(
        [one for one, any_used in zip(parameters, find_largest(used, accelerator), strict=True) if any_used]
    ):
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in parts]
        total = accelerator.reduce(torch.cat([grad.reshape(-1) for grad in grads]), "sum")
        for one, grad in zip(parts, total.split([one.numel() for one in parts]), strict=True):
            one.grad = grad.view_as(one)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Cuts parameters into groups of one dtype and about `_BUCKET` elements: few calls, little memory beside."""
    group: list[nn.Parameter] = []
    size = 0
    for one in parameters:
        if group and (one.dtype != group[0].dtype or size + one.numel() > _BUCKET):
            yield group
            group, size = [], 0
        group.append(one)
        size += one.numel()
    if group:
        yield group


def gather_shares(items: Sequence[Item]) -> list[list[Item]]:
    """Lists the items of every process, by process, and every process gets all; alone, its own are all."""
    shares: list[list[Item]] = gather_object([list(items)])
    return shares


def list_following(shares: Sequence[Sequence[Item]], rank: int) -> list[Item]:
    """Lists, to every item of process `rank`, the one that came after it before `shard` shared them out.

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
