"""Shape checks on the first line of every loss: broadcasting would hide a wrong shape behind a plausible number."""

from __future__ import annotations

from torch import Tensor


def check_shapes(rank: int, **tensors: Tensor) -> None:
    """Checks that all tensors have `rank` dimensions and one shape.

    Raises:
        ValueError: one has not; the message names it.
    """
    first, *_ = tensors.values()
    for name, tensor in tensors.items():
        if tensor.dim() != rank or tensor.shape != first.shape:
            expected = f"{rank} dimension(s)" if tensor is first else f"the shape {tuple(first.shape)}"
            raise ValueError(f"{name}: expected {expected}, got shape {tuple(tensor.shape)}")
