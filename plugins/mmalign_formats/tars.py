"""WebDataset: tar files whose neighbouring members of one name are a row, images and sounds inside.

`000.json`, `000.jpg` and `000.txt` are one row with the key `000` and a column for each ending; the keys of a JSON object
are columns themselves.
"""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmalign import DataError, FileFormat, RawRow, ReadOptions, dump_json, parse_json
from mmalign_formats.compression import damaged_archive, open_bounded
from mmalign_formats.lines import require_utf8
from mmalign_formats.media import guess_type, read_local

_TEXTS = ("txt", "text", "caption", "cls")
_KEY = "__key__"


class WebDataset(FileFormat):
    """Reads and writes tar files of rows."""

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields the rows."""
        number = 0
        for key, members in _iter_groups(path, options):
            number += 1
            try:
                yield RawRow(str(path), number, _read_row(key, members, options), unit="row")
            except DataError as error:
                yield RawRow(str(path), number, fault=f"{key}: {error}", unit="row")

    def write(self, rows: Iterable[Mapping[str, Any]], path: Path, schema: Any = None) -> int:
        """Writes one JSON object a row, and the media that it names as members beside it."""
        count = 0
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for count, row in enumerate(rows, start=1):
                key = f"{count - 1:06d}"
                members: dict[str, bytes] = {}
                packed = _pack(row, members)
                _add(archive, f"{key}.json", dump_json(packed).encode())
                for ending, content in members.items():
                    _add(archive, f"{key}.{ending}", content)
        return count


# -- reading ----------------------------------------------------------------------------------------------------------


def _iter_groups(path: Path, options: ReadOptions) -> Iterator[tuple[str, dict[str, bytes | int]]]:
    key, members = "", {}
    with open_bounded(path, options) as file:
        for name, content in _iter_members(file, path, options):
            stem, ending = _split_name(name)
            if stem != key and members:
                yield key, members
                members = {}
            key = stem
            if ending in members:
                raise DataError(f"{path}: member {name!r} stands there twice")
            members[ending] = content
        if members:
            yield key, members


def _iter_members(file: Any, path: Path, options: ReadOptions) -> Iterator[tuple[str, bytes | int]]:
    """Yields names and contents of the files of an archive; of one that is too large, its size."""
    name = ""
    try:
        with damaged_archive(path, ""), tarfile.open(fileobj=file, mode="r|", errors="surrogateescape") as archive:
            for member in archive:
                name = member.name
                # Links and devices of an archive are of no row; and what it would do to the disk never happens.
                if member.isreg() and not Path(name).name.startswith("."):
                    large = member.size > options.row_bytes
                    content = None if large else archive.extractfile(member)
                    yield name, member.size if content is None else content.read()
    except tarfile.TarError as error:
        where = f" behind {name!r}" if name else ""
        raise DataError(f"{path}: damaged, cut-off or not a tar file{where} ({error}); copy it again") from None


def _split_name(name: str) -> tuple[str, str]:
    """Splits at the first point of the last part of a path, as WebDataset does."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _read_row(key: str, members: Mapping[str, bytes | int], options: ReadOptions) -> dict[str, Any]:
    require_utf8(key)
    row: dict[str, Any] = {_KEY: key}
    contents: dict[str, bytes] = {}
    for ending, content in members.items():
        require_utf8(ending)
        if isinstance(content, int):
            most = f"{options.where}.max_row_bytes, {options.row_bytes:,}"
            raise DataError(f"{ending}: {content:,} bytes, more than {most}; if it is meant, raise the key")
        contents[ending] = content
    for ending, content in contents.items():
        if ending == "json" or ending.endswith(".json"):
            parsed = parse_json(_decode(content, ending))
            row |= parsed if isinstance(parsed, Mapping) and ending == "json" else {ending.removesuffix(".json"): parsed}
        elif ending in _TEXTS:
            row[ending] = _decode(content, ending)
        else:
            row[ending] = {"bytes": content, "path": None}
    packed = row.pop(_KEY)
    unpacked, used = _unpack(row, {f"{Path(key).name}.{ending}": one for ending, one in contents.items()})
    row = {name: value for name, value in unpacked.items() if f"{Path(key).name}.{name}" not in used}
    return row if "id" in row else {"id": packed, **row}


def _decode(content: bytes, ending: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{ending}: byte 0x{content[error.start]:02x} is not UTF-8") from None


def _unpack(value: Any, members: Mapping[str, bytes]) -> tuple[Any, set[str]]:
    """Replaces names of members by `data:` URIs of what they hold; also returns the names that were found."""
    if isinstance(value, str):
        if value not in members:
            return value, set()
        content = members[value]
        return f"data:{guess_type(content)};base64,{base64.b64encode(content).decode()}", {value}
    if isinstance(value, Mapping):
        pairs = {key: _unpack(one, members) for key, one in value.items()}
        return {key: one for key, (one, _) in pairs.items()}, set().union(*(used for _, used in pairs.values()))
    if isinstance(value, list):
        found = [_unpack(one, members) for one in value]
        return [one for one, _ in found], set().union(*(used for _, used in found))
    return value, set()


# -- writing ----------------------------------------------------------------------------------------------------------


def _pack(row: Mapping[str, Any], members: dict[str, bytes]) -> dict[str, Any]:
    """Moves the media of a row, files as well as `data:` URIs, into `members`; returns the row with their names."""
    raise NotImplementedError


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    described = tarfile.TarInfo(name)
    described.size = len(content)
    archive.addfile(described, io.BytesIO(content))
