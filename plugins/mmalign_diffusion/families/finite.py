"""What frozen networks give is finite, or the network and what it was given are named.

Half precision overflows in some autoencoders; without this a run would end with a loss that is no number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmalign import DataError
from mmalign_diffusion.families.components import Frozen

_KEPT = 2**16  # images whose place is remembered


class ImagePlaces:
    """Remembers which record pixels come from, by their shape and sum, to name an image long after it was read."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[tuple[int, ...], float], str] = OrderedDict()

    def note(self, pixels: Tensor, place: str) -> None:
        """Remembers where pixels [C, H, W] come from."""
        self._places[_key(pixels)] = place
        if len(self._places) > _KEPT:
            self._places.popitem(last=False)

    def name(self, pixels: Tensor) -> str:
        """Names the image; without a record where it was not read but sampled."""
        return f"the image of {self._places.get(_key(pixels), 'a sampled response')}"


def require_finite(rows: Sequence[Mapping[str, Tensor]], network: Frozen, what: str, given: Sequence[str]) -> None:
    """Checks what a frozen network gives for every row.

    Args:
        rows: tensors by name.
        network: where they come from.
        what: names it for a message.
        given: names what it was given, row by row.

    Raises:
        DataError: a number is not finite; the message names network and row.
    """
    for row, name in zip(rows, given, strict=True):
        if not all(bool(value.isfinite().all()) for value in row.values() if value.is_floating_point()):
            folder = network.component.folder
            if network.dtype == torch.float32:
                advice = "its weights are damaged, or were never finite"
            else:
                advice = f"it computes in {network.dtype}: set modality.family.encoder_dtype: float32"
            raise DataError(f"the {what} {folder} gives numbers that are not finite for {name}; {advice}")


def _key(pixels: Tensor) -> tuple[tuple[int, ...], float]:
    return tuple(pixels.shape), float(pixels.detach().cpu().sum(dtype=torch.float64))
