"""Errors that a user can act on: where, what was got, what was expected, what to do.

Everything the user can cause derives from `MmalignError`; the command line prints its message without a
traceback and exits with code 2. Anything else that escapes is a bug in mmalign or in a plugin.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mmalign.masking import mask_text


class MmalignError(Exception):
    """A mistake that the user can mend; `str(error)` is the whole message, with secrets masked."""

    def __init__(self, message: object = "") -> None:
        super().__init__(mask_text(str(message)))


class ConfigError(MmalignError):
    """A wrong configuration: the message names file, key path, value and the nearest valid choice."""


class DataError(MmalignError):
    """A wrong data file or record: the message names file, line, field and what was expected."""


class MediaError(DataError):
    """An image or sound that cannot be read: the message names its place in the data, the file and what is wrong."""


class PluginError(MmalignError):
    """A plugin that cannot be used: the message names its distribution, version and the reason."""


class PlanError(MmalignError):
    """A run that cannot be planned, e.g. an objective whose quantity nothing supplies."""


class CheckpointError(MmalignError):
    """A checkpoint that is missing, damaged or belongs to another run."""


class TrainingError(MmalignError):
    """A run that had to stop: the message names the likely cause."""


class OtherProcessError(TrainingError):
    """Another process of the run failed, and has said why; the message names it."""


class ErrorList:
    """Mistakes that are reported together.

    >>> errors = ErrorList()
    >>> with errors.collecting():
    ...     raise ConfigError("one")
    >>> with errors.collecting():
    ...     raise PluginError("two")
    >>> errors.raise_all()
    Traceback (most recent call last):
    mmalign.errors.ConfigError: one
    two
    """

    def __init__(self) -> None:
        self._errors: list[MmalignError] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keeps a mistake for later and goes on behind the block; other errors pass."""
        try:
            yield
        except MmalignError as error:
            self._errors.append(error)

    def raise_all(self) -> None:
        """Raises the only mistake as it is, or several as one ConfigError with a line for each."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            raise ConfigError("\n".join(dict.fromkeys(map(str, self._errors)))) from self._errors[0]


def suggest(got: str, known: Iterable[str]) -> str:
    """Returns `"; did you mean 'dpo'? known: dpo, ipo"`, the tail of an error about an unknown name.

    >>> suggest("dop", ["dpo", "kto"])
    "; did you mean 'dpo'? known: dpo, kto"
    >>> suggest("VIT-B", ["Other", "ViT-B-32"])
    "; did you mean 'ViT-B-32'? known: Other, ViT-B-32"
    """
    names = sorted(set(known))
    if not names:
        return "; none is known"
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(got.lower(), lowered, n=1, cutoff=0.5)
    hint = f"; did you mean {lowered[close[0]]!r}?" if close else ";"
    return f"{hint} known: {', '.join(names)}"
