"""Results of frozen networks, kept on the disk and shared by runs: encoded images, embedded prompts.

A result is kept under a digest of everything that decides it: what `describe` says of the network, and the tensors that
went in. Which inputs were computed together is not part of the key: the result that was stored first stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmalign.references.kept_rows import KeptRows

FORMAT = 1
"""Version of keys and rows; rows of another version are not found."""

Compute = Callable[[list[int]], Sequence[Mapping[str, Tensor]]]


class TensorStore:
    """Computes tensors once; `mmalign cache` shows and clears what is kept.

    Args:
        kind: name of the folder in the cache: a plain name that says what is in it, e.g. `latents`.
        describe: returns what decides a result beside the input, as JSON values: weights, settings, precision. Called
            at the first use, since it may have to read all weights.

    Attributes:
        found: results that were stored.
        computed: results that were not.
    """

    def __init__(self, kind: str, describe: Callable[[], Mapping[str, Any]]) -> None:
        self._rows = KeptRows(kind, kind.replace("_", " "), lambda: {"format": FORMAT, **describe()})
        self.found = 0
        self.computed = 0

    @property
    def damaged(self) -> int:
        """Stored results that were damaged and computed again."""
        return self._rows.damaged

    def fetch(self, inputs: Sequence[Mapping[str, Tensor]], compute: Compute) -> list[dict[str, Tensor]]:
        """Returns the result for every input, on the CPU, bit for bit as it was computed.

        Args:
            compute: given the places of those inputs that are not stored, each distinct one once, returns their results
                in that order: tensors by name. Called at most once.
        """
        from safetensors.torch import load, save

        keys = [self._rows.key(one) for one in inputs]
        rows = self._rows.read(list(dict.fromkeys(keys)))
        missing: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in rows:
                missing.setdefault(key, place)
        if missing:
            results = zip(missing, compute(list(missing.values())), strict=True)
            rows |= self._rows.add(
                {key: save({name: _settle(value) for name, value in one.items()}) for key, one in results}
            )
        self.found += len(inputs) - len(missing)
        self.computed += len(missing)
        return [load(rows[key]) for key in keys]


def _settle(value: Tensor) -> Tensor:
    # A row of a batch would be stored with the whole batch; safetensors takes no views.
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)
