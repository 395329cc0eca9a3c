"""Rows of bytes of one kind in the cache, by what decides them; a run goes on without them where the disk refuses."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from mmalign.references.fingerprints import hash_tensor
from mmalign.references.folders import cache_folder
from mmalign.references.row_store import RowStore

logger = logging.getLogger(__name__)

T = TypeVar("T")


class KeptRows:
    """The table `rows.sqlite` in the cache folder of a kind; the folder is made at the first use.

    Args:
        kind: name of the folder in the cache.
        what: what the rows are, for warnings: a plural.
        describe: returns what decides a row beside its input, as JSON values; called at the first use, since it may
            have to read all weights.
    """

    def __init__(self, kind: str, what: str, describe: Callable[[], Mapping[str, Any]]) -> None:
        self._kind, self._what, self._describe = kind, what, describe
        self._store: RowStore | None = None
        self._broken = False

    @property
    def damaged(self) -> int:
        """Stored rows that were damaged and dropped."""
        return self._store.damaged if self._store else 0

    @property
    def used(self) -> bool:
        """True once a row was asked for."""
        return self._store is not None

    def key(self, tensors: Mapping[str, Tensor], settings: str = "") -> bytes:
        """Digests an input, tensors by name and settings as text, with what `describe` says."""
        digest = hashlib.blake2b(self._context, digest_size=32)
        digest.update(settings.encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(f" {name} ".encode() + hash_tensor(tensor))
        return digest.digest()

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns those rows that are stored."""
        return self._guard(lambda: self._open().read(keys), {})

    def add(self, rows: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Stores rows and returns those that stand: where another process was faster, its row."""
        return self._guard(lambda: self._open().add(rows), rows)

    def identity(self) -> int | None:
        """Returns a random number that the table was given when it was made; None if there is none."""
        return self._guard(lambda: self._open().identity(), None)

    @cached_property
    def _context(self) -> bytes:
        text = json.dumps(dict(self._describe()), sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=32).digest()

    def _open(self) -> RowStore:
        if self._store is None:
            self._store = RowStore(Path(cache_folder(self._kind), "rows.sqlite"))
        return self._store

    def _guard(self, work: Callable[[], T], otherwise: T) -> T:
        """Goes on without a cache where the disk refuses: the run is worth more."""
        if self._broken:
            return otherwise
        try:
            return work()
        except (OSError, sqlite3.Error) as error:
            self._broken = True
            logger.warning("%s are not kept from now on: %s", self._what, error)
            return otherwise
