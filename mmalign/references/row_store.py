"""Rows of bytes by key, in one SQLite file that many runs and processes may use at the same time.

The row that was stored first wins. Every row carries a digest of its key and value: a damaged one is dropped, counted
and can be stored again; a file that is no database any more, or whose table has other columns, is replaced.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

_TIMEOUT = 60.0
"""Seconds to wait for another process that is writing."""

_CHUNK = 500
"""Keys in one query; SQLite takes at least 999 parameters."""


_COLUMNS = ("key", "value", "digest")


class _OtherTable(Exception):
    """The file is a database, but not of rows as they are stored here."""


class RowStore:
    """A table of rows.

    A connection lives for one call only, so the file may be removed between calls and the process may fork.

    Attributes:
        file: made, with its table, when it is first used; its folder must be there.
        damaged: rows and files that were dropped because they were damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.damaged = 0

    def read(self, keys: Collection[bytes]) -> dict[bytes, bytes]:
        """Returns the rows of those `keys` that are stored; drops damaged ones.

        Raises:
            sqlite3.Error: the file cannot be opened, or stays locked.
        """
        return self._run(lambda connection: self._select(connection, keys))

    def add(self, rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Stores rows, all or none.

        Returns:
            the rows that stand: where another process stored one in the meantime, that one.

        Raises:
            sqlite3.Error: the file cannot be written, or stays locked.
        """

        def insert(connection: sqlite3.Connection) -> dict[bytes, bytes]:
            connection.execute("BEGIN IMMEDIATE")
            standing = self._select(connection, rows)
            missing = [(key, value, _digest(key, value)) for key, value in rows.items() if key not in standing]
            connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", missing)
            connection.execute("COMMIT")
            return {**rows, **standing}

        return self._run(insert)

    def count(self) -> int:
        """Counts the rows."""
        return self._run(lambda connection: int(connection.execute("SELECT COUNT(*) FROM rows").fetchone()[0]))

    def identity(self) -> int:
        """Returns a random number that the file was given when it was made; another file has another one."""
        return self._run(_version)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return self._connect(work)
        except _OtherTable as error:
            logger.warning("%s is of another version and starts anew: %s", self.file, error)
        except sqlite3.OperationalError:
            raise  # locked, full, or not to be opened: nothing is wrong with what is stored
        except sqlite3.DatabaseError as error:
            logger.warning("%s is damaged and starts anew: %s", self.file, error)
        self.damaged += 1
        for part in (self.file, self.file.with_name(f"{self.file.name}-journal")):
            part.unlink(missing_ok=True)
        return self._connect(work)

    def _connect(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # Not write-ahead logging: it needs shared memory, which homes on a network have not.
        with closing(sqlite3.connect(self.file, timeout=_TIMEOUT, isolation_level=None)) as connection:
            if _version(connection) == 0:
                _create(connection)
            _check_columns(connection)
            return work(connection)

    def _select(self, connection: sqlite3.Connection, keys: Collection[bytes]) -> dict[bytes, bytes]:
        found = dict(_iter_rows(connection, keys))
        damaged = [key for key, (value, digest) in found.items() if digest != _digest(key, value)]
        if damaged:
            logger.warning("%s: %d damaged rows are dropped and computed again", self.file, len(damaged))
            connection.executemany("DELETE FROM rows WHERE key = ?", [(key,) for key in damaged])
            self.damaged += len(damaged)
        return {key: value for key, (value, _) in found.items() if key not in damaged}


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if _version(connection) == 0:  # no other process was faster
        connection.execute(
            "CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL)"
        )
        connection.execute(f"PRAGMA user_version = {1 + secrets.randbelow(2**31 - 1)}")
    connection.execute("COMMIT")


def _check_columns(connection: sqlite3.Connection) -> None:
    columns = tuple(row[1] for row in connection.execute("PRAGMA table_info(rows)"))
    if columns != _COLUMNS:
        raise _OtherTable(f"expected the columns {', '.join(_COLUMNS)}, got {', '.join(columns) or 'no table'}")


def _iter_rows(connection: sqlite3.Connection, keys: Collection[bytes]) -> Iterator[tuple[bytes, tuple[bytes, bytes]]]:
    remaining = iter(keys)
    while chunk := list(islice(remaining, _CHUNK)):
        marks = ", ".join("?" * len(chunk))
        for key, value, digest in connection.execute(f"SELECT * FROM rows WHERE key IN ({marks})", chunk):
            yield key, (value, digest)


def _digest(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(key + value, digest_size=16).digest()
