"""Log-probs of stored responses under a fixed reference, kept on the disk and shared by runs.

A row is kept under a digest of everything that changes it: the reference's weights and settings, the modality and its
code, library versions, precision, temperature, and the encoded response. Rows are float32, bit for bit as they were
computed. Which responses were scored together is not part of the key: it changes a row in its last bits only, and the
row that was stored first wins. A run that resumes finds the rows that it stored, so it goes on exactly.

Sampled responses are not kept: no run will see them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmalign.contract.values import EncodedResponse
from mmalign.references.kept_rows import KeptRows

logger = logging.getLogger(__name__)

KIND = "reference_logps"
"""Name of the folder in the cache."""

FORMAT = 1
"""Version of keys and rows; rows of another version are not found."""

Score = Callable[[Sequence[EncodedResponse]], Tensor]


class ReferenceCache:
    """Computes reference log-probs once.

    Args:
        describe: returns what decides a row beside the response and the temperature, as JSON values; called at the
            first use, since it reads all weights.

    Attributes:
        found: rows that needed no forward pass.
        computed: rows that did.
    """

    def __init__(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        self._rows = KeptRows(KIND, "reference log-probs", lambda: {"format": FORMAT, **describe()})
        self.found = 0
        self.computed = 0

    @property
    def damaged(self) -> int:
        """Stored rows that were damaged and computed again."""
        return self._rows.damaged

    def logps(self, responses: Sequence[EncodedResponse], temperature: float, score: Score) -> Tensor:
        """Returns reference log-probs [N, T], float32, on the CPU, padded with zeros.

        Args:
            score: computes [n, T] of those `responses` that are not stored, all in one call.
        """
        keys = [self._rows.key(response.tensors, f"{float(temperature)!r} {response.steps}") for response in responses]
        rows = self._rows.read(keys)
        missing = [place for place, key in enumerate(keys) if key not in rows]
        if missing:
            scored = score([responses[place] for place in missing]).cpu()
            computed: dict[bytes, bytes] = {}
            for place, row in zip(missing, scored, strict=True):
                # Of equal responses one row stands now as later, or a resumed run would differ.
                computed.setdefault(keys[place], row[: responses[place].steps].numpy().tobytes())
            rows |= self._rows.add(computed)
        self.found += len(responses) - len(missing)
        self.computed += len(missing)
        # A copy, since the bytes of a row cannot be written to.
        tensors = [torch.from_numpy(np.frombuffer(rows[key], dtype=np.float32).copy()) for key in keys]
        return pad_sequence(tensors, batch_first=True) if tensors else torch.zeros(0, 0)

    def identity(self) -> int | None:
        """Returns a number that tells this cache from one that was cleared or moved; None if it was not used."""
        return self._rows.identity() if self._rows.used else None

    def check_identity(self, identity: int | None) -> None:
        """Warns if a checkpoint was written with the rows of another cache."""
        if identity is not None and identity != self._rows.identity():
            logger.warning(
                "the cache of reference log-probs is not the one that the checkpoint was written with; rows that are "
                "computed again may differ in their last bits, and so may the weights from those of an unbroken run"
            )
