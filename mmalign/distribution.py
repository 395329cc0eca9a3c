"""What the processes of a run do together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor

from mmalign.errors import DataError

SumOverProcesses = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes; every process gets the sum."""

Item = TypeVar("Item")


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
