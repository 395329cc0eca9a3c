"""Contact sheets by their pixels: places, scaling, captions that fit, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import noise
from PIL import Image

from mmalign import DataError
from mmalign.media.contact_sheet import ContactSheet, save_png

RED, BLUE = (Image.new("RGB", (192, 192), colour) for colour in ("red", "blue"))


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == np.array(colour)).all(axis=2).sum())


def darkness(sheet: Image.Image, box: tuple[int, int, int, int]) -> int:
    """How many pixels of a part of the sheet are not white."""
    return int((np.asarray(sheet.crop(box)) != 255).any(axis=2).sum())


def test_images_stand_beside_and_below_each_other() -> None:
    sheet = ContactSheet()
    sheet.add("one", [RED, BLUE])
    sheet.add("two", [BLUE, None])
    drawn = sheet.draw()
    assert count(drawn, (255, 0, 0)) == 192 * 192 and count(drawn, (0, 0, 255)) == 2 * 192 * 192
    assert drawn.size == (8 + 2 * 200, 2 * (16 + 192 + 8) + 8)
    assert drawn.getpixel((100, 100)) == (255, 0, 0) and drawn.getpixel((300, 100)) == (0, 0, 255)
    assert drawn.getpixel((100, 300)) == (0, 0, 255) and drawn.getpixel((300, 300)) == (255, 255, 255)


def test_a_small_image_grows_by_a_whole_factor_and_a_large_one_shrinks() -> None:
    sheet = ContactSheet()
    sheet.add("", [Image.fromarray(np.array([[0, 255]], dtype=np.uint8)), noise(size=(2000, 3))])
    drawn = np.asarray(sheet.draw())
    assert (drawn[20:116, 8:104] == 0).all() and (drawn[20:116, 104:200] == 255).all()
    assert (drawn[20, 208:400] != 255).any() and (drawn[21:, 208:400] == 255).all(), "192 wide and 1 high"


def test_captions_are_drawn_and_never_leave_their_place() -> None:
    for text in ("W" * 5000, "<b>x</b>\n\x1b[31m\x00", "漢字 אב 😀", ""):
        sheet = ContactSheet([text, text])
        sheet.add(text, [RED, RED], [text, text])
        drawn = sheet.draw()
        assert count(drawn, (255, 0, 0)) == 2 * 192 * 192, "text covers no image"
        assert darkness(drawn, (400, 0, 408, drawn.height)) == 0, "nothing in the right margin"
    sheet = ContactSheet()
    sheet.add("seen", [RED])
    assert darkness(sheet.draw(), (0, 0, 408, 20)) > 20


def test_what_does_not_fit_is_counted() -> None:
    small = ContactSheet()
    small.add("", [RED] * 16)
    for _ in range(63):
        small.add("", [RED])
    full = small.draw()
    assert count(full, (255, 0, 0)) == (16 + 63) * 192 * 192
    more = ContactSheet()
    more.add("", [RED] * 17)
    for _ in range(64):
        more.add("", [RED])
    longer = more.draw()
    assert count(longer, (255, 0, 0)) == (16 + 63) * 192 * 192
    assert longer.height == full.height + 16 and darkness(longer, (0, full.height - 4, 408, longer.height)) > 20


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    sheet = ContactSheet()
    assert sheet.empty
    sheet.add("x", [RED])
    sheet.save(tmp_path / "new" / "sheet.png")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["sheet.png"]
    assert Image.open(tmp_path / "new" / "sheet.png").size == sheet.draw().size
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(DataError, match=r"taken.png: cannot be written"):
        save_png(RED, tmp_path / "taken.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"a.png: cannot be written"):
        save_png(RED, tmp_path / "file" / "a.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "new", "taken.png"]
