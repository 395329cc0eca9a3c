"""Log-probs of stored responses under a fixed reference, kept on the disk and shared by runs.

A row is kept under a digest of everything that changes it: the reference's weights and settings, the modality and its
code, library versions, precision, temperature, and the encoded response. Rows are float32, bit for bit as they were
computed. Which responses were scored together is not part of the key: it changes a row in its last bits only, and the
row that was stored first wins. A run that resumes finds the rows that it stored, so it goes on exactly.

Sampled responses are not kept: no run will see them again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmalign.caches import cache_folder
from mmalign.fingerprints import hash_tensor
from mmalign.row_store import RowStore
from mmalign.values import EncodedResponse

logger = logging.getLogger(__name__)

KIND = "reference_logps"
"""Name of the folder in the cache."""

FORMAT = 1
"""Version of keys and rows; rows of another version are not found."""

T = TypeVar("T")

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
        self._describe = describe
        self._store: RowStore | None = None
        self._broken = False
        self.found = 0
        self.computed = 0

    @property
    def damaged(self) -> int:
        """Stored rows that were damaged and computed again."""
        return self._store.damaged if self._store else 0

    def logps(self, responses: Sequence[EncodedResponse], temperature: float, score: Score) -> Tensor:
        """Returns reference log-probs [N, T], float32, on the CPU, padded with zeros.

        Args:
            score: computes [n, T] of those `responses` that are not stored, all in one call.
        """
        keys = [self._key(response, temperature) for response in responses]
        rows = self._read(keys)
        missing = [place for place, key in enumerate(keys) if key not in rows]
        if missing:
            scored = score([responses[place] for place in missing]).cpu()
            computed: dict[bytes, bytes] = {}
            for place, row in zip(missing, scored, strict=True):
                # Of equal responses one row stands now as later, or a resumed run would differ.
                computed.setdefault(keys[place], row[: responses[place].steps].numpy().tobytes())
            rows |= self._add(computed)
        self.found += len(responses) - len(missing)
        self.computed += len(missing)
        # A copy, since the bytes of a row cannot be written to.
        tensors = [torch.from_numpy(np.frombuffer(rows[key], dtype=np.float32).copy()) for key in keys]
        return pad_sequence(tensors, batch_first=True) if tensors else torch.zeros(0, 0)

    def identity(self) -> int | None:
        """Returns a number that tells this cache from one that was cleared or moved; None if it was not used."""
        return self._identity() if self._store else None

    def check_identity(self, identity: int | None) -> None:
        """Warns if a checkpoint was written with the rows of another cache."""
        if identity is not None and identity != self._identity():
            logger.warning(
                "the cache of reference log-probs is not the one that the checkpoint was written with; rows that are "
                "computed again may differ in their last bits, and so may the weights from those of an unbroken run"
            )

    @cached_property
    def _context(self) -> bytes:
        text = json.dumps({"format": FORMAT, **self._describe()}, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=32).digest()

    def _key(self, response: EncodedResponse, temperature: float) -> bytes:
        digest = hashlib.blake2b(self._context, digest_size=32)
        digest.update(f"{float(temperature)!r} {response.steps}".encode())
        for name, tensor in sorted(response.tensors.items()):
            digest.update(f" {name} ".encode() + hash_tensor(tensor))
        return digest.digest()

    def _identity(self) -> int | None:
        return self._guard(lambda: self._open().identity(), None)

    def _open(self) -> RowStore:
        if self._store is None:
            self._store = RowStore(Path(cache_folder(KIND), "rows.sqlite"))
        return self._store

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self._guard(lambda: self._open().read(keys), {})

    def _add(self, rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
        return self._guard(lambda: self._open().add(rows), rows)

    def _guard(self, work: Callable[[], T], otherwise: T) -> T:
        """Goes on without a cache where the disk refuses: the run is worth more."""
        if self._broken:
            return otherwise
        try:
            return work()
        except (OSError, sqlite3.Error) as error:
            self._broken = True
            logger.warning("reference log-probs are not kept from now on: %s", error)
            return otherwise
