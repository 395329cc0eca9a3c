"""What the command line says on the standard error stream: errors, warnings, and with `--debug` everything.

Libraries below mmalign (transformers, datasets, diffusers, ...) and Python's warnings speak to their authors. What they
say goes to the log of a run; where there is no run it is dropped, unless `--debug` asks for it.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from mmalign.cli.context import debug_wanted
from mmalign.masking import mask_text
from mmalign.monitoring.run_log import PendingRecords
from mmalign.shown_text import show_controls

_OWN_HANDLERS = ("transformers", "datasets", "diffusers", "huggingface_hub")
"""Libraries that print what they log themselves."""

_LIBRARIES = {
    *_OWN_HANDLERS,
    *("accelerate", "peft", "tokenizers", "torch", "torchvision", "timm", "open_clip", "safetensors", "numpy"),
    *("py", "fsspec", "filelock", "httpx", "httpcore", "httpx2", "urllib3", "requests", "asyncio", "PIL", "matplotlib"),
    *("tensorboard", "wandb", "trackio", "root", "pyarrow", "aiohttp"),
}
"""Top names of the loggers of libraries; `py.warnings` is that of Python's warnings, `root` the one without a name."""


@contextmanager
def routed_messages() -> Iterator[None]:
    """Inside, what is logged goes to the log of a run, and what is meant for users to the terminal."""
    root, warnings, shown = logging.getLogger(), logging.getLogger("py.warnings"), TerminalHandler()
    pending, level = PendingRecords(), warnings.level
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in _OWN_HANDLERS:
        _take_over(name)
    root.addHandler(pending)
    root.addHandler(shown)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.setLevel(level)
        root.removeHandler(shown)
        root.removeHandler(pending)


def print_error(message: str) -> None:
    """Prints the message of an error that the user can mend."""
    from rich.text import Text

    from mmalign.terminal import message_console, show_text

    line = Text("error: ", style="bold red").append_text(show_text(message, "default"))
    message_console().print(line, soft_wrap=True)


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints a traceback as Python does, with control characters of its texts made visible."""
    sys.stderr.write(show_controls("".join(traceback.format_exception(kind, error, trace))))


class TerminalHandler(logging.Handler):
    """Prints warnings of mmalign and of plugins, and errors of anybody; with `--debug` every record."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record if it is for the terminal."""
        library = record.name.partition(".")[0] in _LIBRARIES
        if not debug_wanted() and record.levelno < (logging.ERROR if library else logging.WARNING):
            return
        name = f"{record.name}: " if library else ""
        # Not a console of ours: while progress is live, it is `sys.stderr` that prints above it.
        message = mask_text(record.getMessage())
        sys.stderr.write(show_controls(f"{record.levelname.lower()}: {name}{message}") + "\n")


class _WithoutHandlers(logging.Logger):
    """The logger of a library that leaves its records to the root logger instead of printing them itself."""

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        pass

    def addHandler(self, handler: logging.Handler) -> None:
        """Leaves a handler out."""


def _take_over(name: str) -> None:
    # Before the library is imported: it puts its handler on its logger then, and importing it takes seconds.
    known = logging.Logger.manager.loggerDict.get(name)
    if isinstance(known, logging.Logger):
        known.handlers.clear()
        known.propagate = True
        return
    before = logging.getLoggerClass()
    logging.setLoggerClass(_WithoutHandlers)
    try:
        logging.getLogger(name)
    finally:
        logging.setLoggerClass(before)
