"""Code that is not ours, called in the middle of a run: what it raises becomes one error that names plugin and line.

    with foreign_code("objective 'mine'", loss):
        losses, metrics = loss(...)

    mmalign.errors.PluginError: objective 'mine' of my_loss.py failed: ZeroDivisionError: division by zero
    (/home/me/my_loss.py, line 12, in mine_loss)

The line is the last one that ran in the author's own files, not in a library that they called. The original exception
is the error's cause, for `--debug`. What the engine itself acts on passes unchanged: our own errors, and memory that
runs out. `plugin_boundary` stands around whole commands and finds by the traceback which plugin raised: a modality, a
collector, a hook are called from too many places to be named at each.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from mmalign.errors import MmalignError, PluginError

_CORE = str(Path(__file__).parent)
_STANDARD = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
_INSTALLED = {"site-packages", "dist-packages"}  # folders, also of an environment that this one extends


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


@contextmanager
def plugin_boundary() -> Iterator[None]:
    """Turns what plugin code inside raises into a PluginError; an error that no plugin has a part in passes.

    Raises:
        PluginError: names the function of the plugin that the engine called, the error and the author's last line.
    """
    try:
        yield
    except MmalignError:
        raise
    except Exception as error:
        frame = None if _is_ours(error) else _called_frame(error.__traceback__)
        if frame is None:
            raise
        package = _top(frame)
        place = _last_place(error.__traceback__, package)
        raise PluginError(f"{_name_call(frame)} of {_origin(package)} failed: {_write(error, place)}") from error


def describe_error(error: BaseException, owner: Any, trace: TracebackType | None) -> str:
    """Writes an exception in one line, with the last line of its author's files that ran.

    Args:
        owner: the function or object that was called; its own package counts as its author's, installed or not.
        trace: the frames that the author may have a part in.
    """
    return _write(error, _last_place(trace, _package(owner)) or _definition(owner))


def name_origin(owner: Any) -> str:
    """Names the package that a function or object comes from, or its file where it is a single one."""
    return _origin(_package(owner))


def _write(error: BaseException, place: Place | None) -> str:
    message = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{f' ({place})' if place else ''}"


def _origin(package: str) -> str:
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package if not file or Path(file).name == "__init__.py" else Path(file).name


def _is_ours(error: BaseException) -> bool:
    """Returns whether the engine itself acts on an error: it makes room where memory runs out."""
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from mmalign.hardware import is_out_of_memory

    return is_out_of_memory(error)


def _last_place(trace: TracebackType | None, package: str) -> Place | None:
    places = [
        Place(frame.f_code.co_filename, line, frame.f_code.co_name)
        for frame, line in traceback.walk_tb(trace)
        if _is_authors(frame, {package})
    ]
    return places[-1] if places else None


def _called_frame(trace: TracebackType | None) -> FrameType | None:
    """Returns where the last plugin was entered: a collector calls an engine, that a modality, which then raises."""
    installed = {one.module.partition(".")[0] for one in importlib.metadata.entry_points(group="mmalign")}
    entered, before = None, ""
    for frame, _ in traceback.walk_tb(trace):
        if _is_authors(frame, installed):
            if _top(frame) != before:
                entered = frame
            before = _top(frame)
        elif frame.f_code.co_filename.startswith(_CORE):
            before = ""
    return entered


def _is_authors(frame: FrameType, packages: Collection[str]) -> bool:
    file = Path(frame.f_code.co_filename)
    if _top(frame) in packages:
        return True
    ours = str(file).startswith((_CORE, *_STANDARD)) or not _INSTALLED.isdisjoint(file.parts)
    return file.is_file() and not ours


def _name_call(frame: FrameType) -> str:
    """Names a function as its author would: `Mine.encode`."""
    part = frame.f_locals.get("self")
    return frame.f_code.co_name if part is None else f"{type(part).__name__}.{frame.f_code.co_name}"


def _top(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


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
