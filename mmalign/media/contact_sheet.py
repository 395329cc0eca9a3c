"""Contact sheets: images in a grid, a row for each prompt, with captions.

Captions are drawn, so no text can become markup; what does not fit is cut.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmalign.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

_CELL = 192  # side of an image's square, in pixels
_GAP = 8
_LINE = 16  # height of a line of text
_TEXT = 11  # size of the letters
_ROWS = 64
_COLUMNS = 16
_LONGEST = 400  # characters of a caption that are looked at


class ContactSheet:
    """A sheet that grows row by row; what does not fit on it is counted.

    Args:
        columns: headings of the columns; none if they have no names.
    """

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._headings = tuple(columns)
        self._rows: list[tuple[str, list[Image | None], tuple[str, ...]]] = []
        self._left_out = {"prompts": 0, "images": 0}

    @property
    def empty(self) -> bool:
        """True if there is no row to draw."""
        return not self._rows

    def add(self, caption: str, images: Sequence[Image | None], notes: Sequence[str] = ()) -> None:
        """Adds a row.

        Args:
            caption: of the row, e.g. the prompt.
            images: None leaves a place empty.
            notes: below the images, e.g. their rewards.
        """
        if len(self._rows) == _ROWS:
            self._left_out["prompts"] += 1
            return
        self._left_out["images"] += max(0, len(images) - _COLUMNS)
        kept = [None if image is None else _fit(image) for image in images[:_COLUMNS]]
        self._rows.append((caption, kept, tuple(notes[:_COLUMNS])))

    def draw(self) -> Image:
        """Draws the sheet."""
        from PIL import Image as images
        from PIL import ImageDraw

        left_out = [f"{count} {what}" for what, count in self._left_out.items() if count]
        columns = max(len(row) for _, row, _ in self._rows)
        noted = any(notes for _, _, notes in self._rows)
        height = _LINE + _CELL + (_LINE if noted else 0) + _GAP
        heads = _LINE if self._headings else 0
        foot = _LINE if left_out else 0
        # A single column of images still leaves room to read a prompt.
        width = _GAP + max(columns, 2) * (_CELL + _GAP)
        sheet = images.new("RGB", (width, heads + len(self._rows) * height + foot + _GAP), "white")
        pen = ImageDraw.Draw(sheet)
        for column, heading in enumerate(self._headings):
            _write(pen, (_column(column), _GAP // 2), heading, _CELL)
        for index, (caption, row, notes) in enumerate(self._rows):
            top = _GAP // 2 + heads + index * height
            _write(pen, (_GAP, top), caption, width - 2 * _GAP)
            for column, image in enumerate(row):
                if image is not None:
                    sheet.paste(image, (_column(column), top + _LINE))
            for column, note in enumerate(notes):
                _write(pen, (_column(column), top + _LINE + _CELL), note, _CELL)
        if left_out:
            _write(pen, (_GAP, sheet.height - _LINE - _GAP // 2), f"not shown: {', '.join(left_out)}", width)
        return sheet

    def save(self, path: Path) -> None:
        """Writes the sheet as PNG; the file is there whole or not at all.

        Raises:
            DataError: the disk refuses.
        """
        save_png(self.draw(), path)


def save_png(image: Image, path: Path) -> None:
    """Writes a PNG file whole or not at all; raises DataError if the disk refuses."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(temporary, format="PNG")
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # where the folder cannot be made
            temporary.unlink()


def _column(index: int) -> int:
    return _GAP + index * (_CELL + _GAP)


def _fit(image: Image) -> Image:
    """Scales an image into a cell: a large one smoothly, a small one by a whole factor, so that its pixels show."""
    from PIL.Image import Resampling

    shown = image.convert("RGB")
    side = max(shown.size)
    if side <= _CELL // 2:
        factor = _CELL // side
        return shown.resize((shown.width * factor, shown.height * factor), Resampling.NEAREST)
    scale = _CELL / side
    size = (max(1, round(shown.width * scale)), max(1, round(shown.height * scale)))
    return shown.resize(size, Resampling.LANCZOS)


@cache
def _load_font() -> Any:
    """Loads a font of many scripts where the machine has it, else the one of basic Latin letters in Pillow."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", _TEXT)
    except OSError:
        return ImageFont.load_default(_TEXT)


def _write(pen: ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    """Writes one line of text, cut to a width in pixels."""
    font = _load_font()
    line = " ".join("".join(char if char.isprintable() else " " for char in text[:_LONGEST]).split())
    shown = line
    for length in range(len(line), 0, -1):
        shown = line if length == len(line) and len(text) <= _LONGEST else f"{line[:length]}..."
        if pen.textlength(shown, font=font) <= width:
            break
    pen.text(place, shown, fill="black", font=font)
