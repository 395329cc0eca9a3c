"""Finds what a data section names: files, a folder, a data set on the hub."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.contract.formats import FileFormat, ReadOptions, Rows
from mmalign.errors import DataError
from mmalign.sources.format_choice import Formats, format_code

if TYPE_CHECKING:
    from mmalign.config.data import DataConfig

QUARANTINE_SUFFIX = ".quarantine.jsonl"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def find_rows(config: DataConfig, formats: Formats, where: str) -> list[Rows]:
    """Finds what `config.path` names.

    Raises:
        DataError: nothing is there, or it is of an unknown kind; the message starts with `where.path`.
    """
    options = config.read_options(where)
    path = Path(config.path).expanduser()
    if path.is_dir():
        return [_open_folder(path, formats, options)]
    if path.is_file():
        return [_open(_require_known(path, formats, where), str(path), options)]
    if any(mark in config.path for mark in "*?["):
        return list(_match_files(config.path, formats, options))
    hub = formats.for_hub()
    if hub and _HUB_ID.fullmatch(config.path) and not path.parent.is_dir() and not _is_file_name(path, formats):
        return [_open(hub, config.path, options)]
    raise DataError(f"{where}.path: no such file {config.path!r}{_nearest(path, formats)}")


def _open(form: FileFormat, path: str, options: ReadOptions) -> Rows:
    with format_code(f"format of {path}", form):
        return form.open(path, options)


def describe_suffixes(formats: Formats) -> str:
    """Lists the ends of file names that are known."""
    return ", ".join(sorted(formats.suffixes)) or "nothing: no plugin with formats is loaded"


def _open_folder(path: Path, formats: Formats, options: ReadOptions) -> Rows:
    form = formats.for_folder(path)
    if form is None:
        found = sorted({suffix for suffix in formats.suffixes for one in path.iterdir() if one.name.endswith(suffix)})
        raise DataError(
            f"{options.where}.path: {str(path)!r} is a folder, but neither a saved Hugging Face dataset nor one of "
            f"images; name a file, or '{path}/*{found[0] if found else '.jsonl'}'"
        )
    return _open(form, str(path), options)


def _is_file_name(path: Path, formats: Formats) -> bool:
    return any(path.name.lower().endswith(suffix) for suffix in formats.suffixes)


def _match_files(pattern: str, formats: Formats, options: ReadOptions) -> Iterator[Rows]:
    names = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))
    found = [Path(name) for name in names if not name.endswith(QUARANTINE_SUFFIX)]
    if not found:
        raise DataError(f"{options.where}.path: no file matches {pattern!r}")
    for path in found:
        if path.is_dir():
            yield _open_folder(path, formats, options)
        else:
            yield _open(_require_known(path, formats, options.where), str(path), options)


def _require_known(path: Path, formats: Formats, where: str) -> FileFormat:
    form = formats.for_file(path)
    if form is None:
        expected = f"expected a file named {describe_suffixes(formats)}"
        raise DataError(f"{where}.path: {path}: {expected}; or name its format, e.g. format: csv")
    return form


def _nearest(path: Path, formats: Formats) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {str(path.parent)!r}"
    names = [entry.name for entry in path.parent.iterdir() if _is_file_name(entry, formats)]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""
