"""Silence where nothing takes long: the progress bars that transformers shows for local files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_loading(*, local: bool) -> Iterator[None]:
    """Hides transformers' progress bars while models are loaded or saved; a download (not `local`) keeps its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if local:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
