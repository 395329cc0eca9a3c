"""The log of a run, `log.txt` in its folder: what mmalign, its plugins and the libraries below them have to say.

Libraries talk before the folder of a run is known. Where `PendingRecords` has been installed, as the command line does,
that is kept until then.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.masking import mask_text
from mmalign.shown_text import show_controls

FILE = "log.txt"

_KEPT = 10_000
"""Records that wait for a run's folder; the oldest go first."""


class PendingRecords(logging.Handler):
    """Keeps log records until a run has a folder to write them to."""

    def __init__(self) -> None:
        super().__init__()
        self._records: deque[logging.LogRecord] = deque(maxlen=_KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps a record."""
        self._records.append(record)

    def take(self) -> list[logging.LogRecord]:
        """Returns what was kept, and forgets it."""
        records = list(self._records)
        self._records.clear()
        return records


@contextmanager
def run_log(folder: Path, *, writes: bool, anew: bool = True) -> Iterator[None]:
    """Inside, log records go to `log.txt`, after those that were waiting for it.

    Args:
        folder: of the run; it exists.
        writes: False on processes other than the main one, and nothing is written.
        anew: False to go on with the log that is there.
    """
    if not writes:
        yield
        return
    handler = logging.FileHandler(folder / FILE, "w" if anew else "a", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_LogFormatter())
    root, own = logging.getLogger(), logging.getLogger("mmalign")
    for pending in [one for one in root.handlers if isinstance(one, PendingRecords)]:
        for record in pending.take():
            handler.handle(record)
    level = own.level
    root.addHandler(handler)
    # Examples and other news of a run are of level INFO, which the root logger leaves out by default.
    own.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        own.setLevel(level)
        root.removeHandler(handler)
        handler.close()


class _LogFormatter(logging.Formatter):
    """Writes `2026-01-31 12:00:00+0000 WARNING transformers.x: message`; what follows a line break is indented."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(record.created))
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        # Libraries know nothing of our secrets, and whoever prints this file in a terminal is not to be steered by it.
        shown = show_controls(mask_text(message)).replace("\n", "\n    ")
        return f"{moment} {record.levelname} {record.name}: {shown}"
