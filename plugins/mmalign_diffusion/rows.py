"""Rows of latents that go through a network together: those of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from mmalign import EncodedResponse

_CONTENT = ("noisy", "latents", "data")
"""Tensors that hold what is denoised, by how far an encoding has come."""


def group_by_shape(rows: Sequence[int], responses: Sequence[EncodedResponse]) -> list[list[int]]:
    """Groups some rows of `responses` by the shape of their content."""
    keys = {row: _shape(responses[row]) for row in rows}
    ordered = sorted(rows, key=lambda row: keys[row])
    return [list(group) for _, group in groupby(ordered, key=lambda row: keys[row])]


def restore_order(parts: Sequence[Tensor], groups: Sequence[Sequence[int]]) -> Tensor:
    """Joins the results [n, ...] of all groups in the order of their rows."""
    order = torch.tensor([row for group in groups for row in group])
    return torch.cat(list(parts))[order.argsort().to(parts[0].device)]


def _shape(response: EncodedResponse) -> tuple[str, tuple[int, ...]]:
    name = next(name for name in _CONTENT if name in response.tensors)
    return name, tuple(response.tensors[name].shape)
