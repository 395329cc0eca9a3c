"""Folders of images, with `metadata.csv` or `metadata.jsonl` beside them, as Hugging Face's `imagefolder` has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmalign import DataError, FileFormat, RawRow, ReadOptions
from mmalign_formats.delimited import Delimited
from mmalign_formats.lines import JsonLines

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp")
_NAMES = ("metadata.jsonl", "metadata.csv")
_FILE = "file_name"


class ImageFolder(FileFormat):
    """Reads folders of images: a row for each, with the path as `image` and what the metadata say of it.

    Without metadata, a text file of the same name is the `caption`, and the folder an image is in is its `label`.
    """

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Returns whether there are images in the folder."""
        return any(_is_image(file) for file in path.rglob("*"))

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields a row for each line of the metadata, or for each image in the order of their paths."""
        metadata = next((path / name for name in _NAMES if (path / name).is_file()), None)
        if metadata is None:
            for number, file in enumerate(sorted(filter(_is_image, path.rglob("*"))), start=1):
                try:
                    yield RawRow(str(path / "*"), number, _describe(file, path), unit="image")
                except DataError as error:
                    yield RawRow(str(path / "*"), number, fault=str(error), text=str(file), unit="image")
            return
        reader: FileFormat = JsonLines() if metadata.suffix == ".jsonl" else Delimited(",", '"')
        for row in reader.read(metadata, options):
            yield row if row.fault else _add_image(row)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")


def _describe(file: Path, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"id": str(file.relative_to(folder)), "image": str(file.relative_to(folder))}
    text = file.with_suffix(".txt")
    if text.is_file():
        try:
            row["caption"] = text.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{text}: cannot be read: {error}") from None
    if file.parent != folder:
        row["label"] = file.parent.name
    return row


def _add_image(row: RawRow) -> RawRow:
    value = row.value if isinstance(row.value, dict) else {}
    name = value.get(_FILE)
    if not isinstance(name, str):
        return RawRow(row.file, row.number, fault=f"{_FILE}: expected the name of an image", text=row.show())
    rest = {key: one for key, one in value.items() if key != _FILE}
    return RawRow(row.file, row.number, {"id": name, "image": name, **rest}, text=row.text)
