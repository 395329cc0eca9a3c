"""WebDataset: tar files whose neighbouring members of one name are a row, images and sounds inside.

`000.json`, `000.jpg` and `000.txt` are one row with the key `000` and a column for each ending; the keys of a JSON
object are columns themselves.
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
from mmalign_formats.media import COLUMN_NAMES, data_uri

_TEXTS = ("txt", "text", "caption", "cls")
_KEY = "__key__"
_NAMING = frozenset({*COLUMN_NAMES, "uri", "path", "url", "jpg_0", "jpg_1"})
"""Keys below which the name of a member is not a text but what the member holds."""


class WebDataset(FileFormat):
    """Reads and writes tar files of rows."""

    embeds = True

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
                packed = _pack(row, key, members)
                _add(archive, f"{key}.json", dump_json(packed).encode())
                for ending, content in members.items():
                    _add(archive, f"{key}.{ending}", content)
        return count


# -- reading ----------------------------------------------------------------------------------------------------------


def _iter_groups(path: Path, options: ReadOptions) -> Iterator[tuple[str, dict[str, bytes | int]]]:
    key, size = "", 0
    members: dict[str, bytes | int] = {}
    with open_bounded(path, options) as file:
        for name, content in _iter_members(file, path, options):
            stem, ending = _split_name(name)
            if stem != key and members:
                yield key, members
                members, size = {}, 0
            key = stem
            if ending in members:
                raise DataError(f"{path}: member {name!r} stands there twice")
            size += len(content) if isinstance(content, bytes) else 0
            # Many members of one name are as much as a large one.
            members[ending] = content if size <= options.row_bytes else size
        if members:
            yield key, members


def _iter_members(file: Any, path: Path, options: ReadOptions) -> Iterator[tuple[str, bytes | int]]:
    """Yields names and contents of the files of an archive; of one that is too large, its size."""
    name = ""
    try:
        with damaged_archive(path), tarfile.open(fileobj=file, mode="r|", errors="surrogateescape") as archive:
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
            row |= (
                parsed if isinstance(parsed, Mapping) and ending == "json" else {ending.removesuffix(".json"): parsed}
            )
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


def _unpack(value: Any, members: Mapping[str, bytes], shows: bool = False) -> tuple[Any, set[str]]:
    """Replaces names of members by `data:` URIs of what they hold, where media are named; also returns those names."""
    if isinstance(value, str):
        return (data_uri(members[value]), {value}) if shows and value in members else (value, set())
    if isinstance(value, Mapping):
        pairs = {key: _unpack(one, members, shows or key in _NAMING) for key, one in value.items()}
        return {key: one for key, (one, _) in pairs.items()}, set().union(*(used for _, used in pairs.values()))
    if isinstance(value, list):
        found = [_unpack(one, members, shows) for one in value]
        return [one for one, _ in found], set().union(*(used for _, used in found))
    return value, set()


# -- writing ----------------------------------------------------------------------------------------------------------


def _pack(value: Any, key: str, members: dict[str, bytes], shows: bool = False) -> Any:
    """Moves the media of a row that are `data:` URIs or bytes into `members`; returns the row with their names."""
    if isinstance(value, Mapping):
        return {name: _pack(one, key, members, shows or name in _NAMING) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(one, key, members, shows) for one in value]
    if not shows or not isinstance(value, str) or not value.startswith("data:"):
        return value
    described, comma, encoded = value.partition(",")
    try:
        content = base64.b64decode(encoded, validate=True)
    except ValueError:
        content = b""
    # Another URI would not come back as it was.
    if not comma or data_uri(content) != value:
        return value
    kind = described.removeprefix("data:").partition(";")[0].rpartition("/")[2]
    ending = f"m{len(members) + 1}.{kind}"
    members[ending] = content
    return f"{key}.{ending}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    described = tarfile.TarInfo(name)
    described.size = len(content)
    archive.addfile(described, io.BytesIO(content))
