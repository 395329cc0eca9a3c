"""Ctrl-C and SIGTERM ask a run to stop after the current round; a second signal stops it at once.

Of several processes one may get the signal: at the end of a round they agree on it, see `mmalign.training.loop`.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)


class Interruption:
    """A context in which SIGINT and SIGTERM are noted instead of raising.

    Args:
        patience: seconds after the first signal in which further ones say nothing new: a launcher passes on to every
            process the Ctrl-C that the terminal has sent to it already.

    Attributes:
        signal: number of the first signal; 0 until one has come.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, patience: float = 0.0) -> None:
        self.signal = 0
        self._patience = patience
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return self.signal != 0

    def __enter__(self) -> Interruption:
        # Python delivers signals to the main thread only, and only it may install handlers.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            if time.monotonic() - self._since < self._patience:
                return
            raise KeyboardInterrupt
        self.signal, self._since = number, time.monotonic()
        logger.warning("stopping after this round and saving; a second Ctrl-C stops at once and saves nothing")
