"""What frozen encoders make of images and prompts, kept on the disk: each is encoded once, in this run and in others.

The key is made of the content (pixels or tokens), the encoders' weights and settings, and the precision. Results are
kept in the precision of the encoders. `mmalign cache` shows and clears them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign import TensorStore

IMAGES, PROMPTS = "diffusion_latents", "diffusion_prompts"
"""Names of the folders in the cache."""

Encode = Callable[[list[int]], Sequence[Mapping[str, Tensor]]]


class EncodingCache:
    """Encodes what was not encoded before.

    Args:
        kind: name of the folder in the cache.
        describe: names what decides an encoding beside the content, as JSON values; called at the first use.
        keep: False to encode everything every time.

    Attributes:
        encoded: how many the encoders were given.
    """

    def __init__(self, kind: str, describe: Callable[[], Mapping[str, Any]], *, keep: bool) -> None:
        self._store = TensorStore(kind, lambda: {**describe(), "versions": _versions()}) if keep else None
        self.encoded = 0

    @property
    def found(self) -> int:
        """How many were not given to them, because they were kept."""
        return self._store.found if self._store else 0

    @property
    def damaged(self) -> int:
        """How many kept ones were damaged and encoded again."""
        return self._store.damaged if self._store else 0

    def encode(self, inputs: Sequence[Mapping[str, Tensor]], encode: Encode) -> list[dict[str, Tensor]]:
        """Returns the encoding of every input: tensors by name, on the CPU.

        Args:
            encode: encodes the inputs at some places.
        """

        def count(places: list[int]) -> Sequence[Mapping[str, Tensor]]:
            self.encoded += len(places)
            return encode(places)

        if self._store is not None:
            return self._store.fetch(inputs, count)
        return [{name: value.cpu() for name, value in one.items()} for one in count(list(range(len(inputs))))]


def _versions() -> dict[str, str]:
    packages = ("diffusers", "transformers")
    return {"torch": str(torch.__version__), **{name: importlib.metadata.version(name) for name in packages}}
