"""What the global options of the command line say, for the modules of the commands. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmalign.plugins.registry import Registry

_disabled: ContextVar[tuple[str, ...]] = ContextVar("disabled_plugins", default=())
_debug: ContextVar[bool] = ContextVar("debug", default=False)


def set_debug(wanted: bool) -> None:
    """Remembers whether `--debug` was given."""
    _debug.set(wanted)


def debug_wanted() -> bool:
    """Returns whether errors are shown with their traceback."""
    return _debug.get()


def set_disabled_plugins(names: Sequence[str]) -> None:
    """Remembers the names given with `--no-plugin`."""
    _disabled.set(tuple(names))


def disabled_plugins() -> tuple[str, ...]:
    """Returns the names given with `--no-plugin`."""
    return _disabled.get()


def current_registry(files: Sequence[Path] = ()) -> Registry:
    """Loads the plugins that the command line asks for, and the plugin files of a configuration."""
    from mmalign.plugins.registry import load_registry

    return load_registry(disabled=disabled_plugins(), files=files)
