"""Code that is not ours, called in the middle of a run: what it raises becomes one error that names plugin and line.

    with foreign_code("objective 'mine'", loss):
        losses, metrics = loss(...)

    mmalign.errors.PluginError: objective 'mine' of my_loss.py failed: ZeroDivisionError: division by zero
    (/home/me/my_loss.py, line 12, in mine_loss)

The line is the last one that ran in the author's own files, not in a library that they called. The original exception
is the error's cause, for `--debug`. What the engine itself acts on passes unchanged: our own errors, and memory that
runs out.
"""

from __future__ import annotations

import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from mmalign.errors import MmalignError, PluginError

_CORE = str(Path(__file__).parent)
_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Place(NamedTuple):
    """A line of somebody's code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, in {self.function}"


@contextmanager
def foreign_code(part: str, owner: Any) -> Iterator[None]:
    """Turns what the code inside raises, `SystemExit` included, into a PluginError.

    Args:
        part: kind and name of what is called, e.g. `objective 'mine'`.
        owner: the function or object that is called, by which its author's files are known.

    Raises:
        PluginError: names the part, where it comes from, the error and the last line of the author's files.
    """
    try:
        yield
    except MmalignError:
        raise
    except (Exception, SystemExit) as error:
        if _is_ours(error):
            raise
        trace = error.__traceback__
        # The first two frames are this function's and its caller's.
        inside = trace and trace.tb_next and trace.tb_next.tb_next
        raise PluginError(f"{part} of {name_origin(owner)} failed: {describe_error(error, owner, inside)}") from error


def describe_error(error: BaseException, owner: Any, trace: TracebackType | None) -> str:
    """Writes an exception in one line, with the last line of its author's files that ran.

    Args:
        owner: the function or object that was called; its own package counts as its author's, installed or not.
        trace: the frames that the author may have a part in.
    """
    message = " ".join(str(error).split())
    place = _last_place(trace, owner) or _definition(owner)
    return f"{type(error).__name__}{': ' if message else ''}{message}{f' ({place})' if place else ''}"


def name_origin(owner: Any) -> str:
    """Names the package that a function or object comes from, or its file where it is a single one."""
    package = _package(owner)
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package if not file or Path(file).name == "__init__.py" else Path(file).name


def _is_ours(error: BaseException) -> bool:
    """Tells whether the engine itself acts on an error: it makes room where memory runs out."""
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from mmalign.compute.memory import is_out_of_memory

    return is_out_of_memory(error)


def _last_place(trace: TracebackType | None, owner: Any) -> Place | None:
    package = _package(owner)
    places = [
        Place(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(trace)
        if _is_authors(frame, package)
    ]
    return places[-1] if places else None


def _is_authors(frame: FrameType, package: str) -> bool:
    file = frame.f_code.co_filename
    if package and str(frame.f_globals.get("__name__", "")).partition(".")[0] == package:
        return True
    return Path(file).is_file() and not file.startswith((_CORE, *_LIBRARIES))


def _package(owner: Any) -> str:
    """Returns the top-level package of a function, a class or an object; empty for one of the core."""
    owner = getattr(owner, "func", owner)  # of a partial
    module = getattr(owner, "__module__", None) or type(owner).__module__
    package = str(module).partition(".")[0]
    return "" if package == "mmalign" else package


def _definition(owner: Any) -> Place | None:
    """Returns where a function begins: a call with wrong arguments never reaches a line of it."""
    function = inspect.unwrap(getattr(owner, "func", owner))
    code = getattr(function, "__code__", None)
    return Place(code.co_filename, code.co_firstlineno, function.__name__) if code else None
