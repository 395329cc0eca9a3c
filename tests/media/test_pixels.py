"""Pixels of unusual files by known values: depths, transparency, turns; both levels of checking agree on all."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import SIZE, animation, encode, noise, png, png_chunk, put, raw_png, raw_tiff
from PIL import Image, ImageCms

from mmalign import Media, MediaError, Record, open_image
from mmalign.media.checks import MediaCheck, check_media
from mmalign.media.images import read_header


def read(path: Path, **claims: Any) -> Image.Image:
    return open_image(Media(mid="m", type="image", uri=str(path), **claims), where="here")


def pixels(path: Path) -> Any:
    return np.asarray(read(path)).tolist()


def record(*paths: Path, **claims: Any) -> Record:
    media = [{"mid": str(place), "type": "image", "uri": str(path), **claims} for place, path in enumerate(paths)]
    content = [{"type": "image", "media": one["mid"]} for one in media]
    prompt = [{"role": "user", "content": content}]
    return Record.from_dict({"id": "r", "schema": "mmalign/1", "prompt": prompt, "media": media})


# -- depths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "photometric", "content", "expected"),
    [
        (8, 1, bytes([0, 255]), [0, 255]),
        (8, 0, bytes([0, 255]), [255, 0]),
        (16, 1, np.uint16([0, 65535]).tobytes(), [0, 255]),
        (16, 0, np.uint16([0, 65535]).tobytes(), [255, 0]),
        (12, 1, bytes([0x00, 0x0F, 0xFF]), [0, 255]),
    ],
)
def test_white_of_a_tiff_is_what_it_says(
    bits: int, photometric: int, content: bytes, expected: Any, tmp_path: Path
) -> None:
    """12 bits: the pixels 0x000 and 0xFFF, packed."""
    assert pixels(put(tmp_path, "a.tif", raw_tiff(bits, photometric, content, width=2))) == [expected]


@pytest.mark.parametrize(("bits", "sign", "dtype"), [(16, 2, "i2"), (32, 1, "u4"), (32, 3, "f4")])
def test_pixels_without_a_known_white_are_refused_at_both_levels(
    bits: int, sign: int, dtype: str, tmp_path: Path
) -> None:
    file = put(tmp_path, "a.tif", raw_tiff(bits, 1, np.zeros(2, dtype).tobytes(), width=2, sign=sign))
    for level in ("header", "full"):
        with pytest.raises(MediaError, match="whose white is not known; save it with 8 or 16 bits"):
            check_media(record(file), level=level)  # type: ignore[arg-type]


def test_a_layout_that_pillow_does_not_read_is_named(tmp_path: Path) -> None:
    file = put(tmp_path, "a.tif", raw_tiff(11, 1, bytes(4), width=2))
    for level in ("header", "full"):
        with pytest.raises(
            MediaError, match=r"a TIFF file whose .* kind of pixels is not read; save it as RGB or grey"
        ):
            check_media(record(file), level=level)  # type: ignore[arg-type]


def test_lab_is_shown_as_the_colour_it_means(tmp_path: Path) -> None:
    red = Image.new("RGB", SIZE, (200, 40, 30))
    lab: Any = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    shown = read(put(tmp_path, "a.tif", encode(lab, "TIFF"))).getpixel((3, 3))
    assert np.abs(np.subtract(shown, (200, 40, 30))).max() <= 3  # type: ignore[arg-type]


def test_inks_of_a_jpeg_are_read_inverted_where_adobe_says_so(tmp_path: Path) -> None:
    """Pillow writes CMYK as Adobe does, inverted, with its marker; a TIFF holds it plainly."""
    inks = Image.new("CMYK", SIZE, (0, 255, 255, 0))
    for form in ("JPEG", "TIFF"):
        red, green, blue = read(put(tmp_path, f"a.{form}", encode(inks, form))).getpixel((3, 3))  # type: ignore[misc]
        assert red > 247 and green < 8 and blue < 8


# -- transparency -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "rows", "transparent", "expected"),
    [
        (1, b"\0\x40", 1, [0, 255]),
        (2, b"\0\x1c", 1, [0, 255, 255]),
        (4, b"\0\x05", 5, [0, 255]),
        (8, b"\0\0\x05", 5, [0, 255]),
        (16, b"\0\x80\0\x01\x05", 0x0105, [128, 255]),
    ],
)
def test_the_transparent_grey_of_a_png_is_laid_over_white(
    bits: int, rows: bytes, transparent: int, expected: Any, tmp_path: Path
) -> None:
    """The transparent value is in the file's own units: 5 of 15 at 4 bits is 85 of 255."""
    before = png_chunk(b"tRNS", transparent.to_bytes(2, "big"))
    assert pixels(put(tmp_path, "a.png", raw_png((len(expected), 1), bits, 0, rows, before))) == [expected]


def test_a_transparent_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    """8 bits of it are those of its neighbours."""
    rows = b"\0" + 3 * b"\1\5" + 3 * b"\1\6"
    file = put(tmp_path, "a.png", raw_png((2, 1), 16, 2, rows, png_chunk(b"tRNS", 3 * b"\1\5")))
    for level in ("header", "full"):
        with pytest.raises(MediaError, match="a transparent colour of 16 bits a channel"):
            check_media(record(file), level=level)  # type: ignore[arg-type]
    assert pixels(put(tmp_path, "b.png", raw_png((2, 1), 16, 2, rows))) == [[[1] * 3, [1] * 3]]


# -- turns ------------------------------------------------------------------------------------------------------------


def exif(orientation: int) -> Image.Exif:
    built = Image.Exif()
    built[0x0112] = orientation
    return built


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
PLAIN = b"XML:com.adobe.xmp" + bytes(5) + XMP
PACKED = b"XML:com.adobe.xmp\0\1" + bytes(3) + zlib.compress(XMP)
ROWS = (b"\0" + bytes(SIZE[0])) * SIZE[1]


def turned_files() -> dict[str, bytes]:
    """Files of 16 x 12 pixels that are shown as 12 x 16."""
    chunk = png_chunk(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0"))
    files = {form: encode(noise(), form, exif=exif(6)) for form in ("PNG", "JPEG", "TIFF", "WEBP")}
    files |= {
        "PNG, EXIF behind": raw_png(SIZE, 8, 0, ROWS, behind=chunk),
        "PNG, XMP": raw_png(SIZE, 8, 0, ROWS, before=png_chunk(b"iTXt", PLAIN)),
        "PNG, XMP behind": raw_png(SIZE, 8, 0, ROWS, behind=png_chunk(b"iTXt", PLAIN)),
        "PNG, XMP packed": raw_png(SIZE, 8, 0, ROWS, behind=png_chunk(b"iTXt", PACKED)),
        "JPEG, XMP": encode(noise(), "JPEG", xmp=XMP),
        "WEBP, XMP": encode(noise(), "WEBP", xmp=XMP),
    }
    return files


@pytest.mark.parametrize("name", turned_files())
def test_both_levels_see_the_size_as_shown(name: str, tmp_path: Path) -> None:
    file = put(tmp_path, "a", turned_files()[name])
    assert read(file).size == (12, 16)
    header = read_header(Media(mid="m", type="image", uri=str(file)), where="here")
    assert (header.width, header.height) == (12, 16)
    for level in ("header", "full"):
        check_media(record(file, width=12, height=16), level=level)  # type: ignore[arg-type]
        with pytest.raises(MediaError, match="the record says width 16, the file 12"):
            check_media(record(file, width=16, height=12), level=level)  # type: ignore[arg-type]


# -- what is not read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**21))),
        png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a" * 2**21)),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1" + bytes(3) + zlib.compress(b"a" * 2**21)),
        png_chunk(b"tEXt", b"no keyword"),
        png_chunk(b"iCCP", b"icc\0\0no profile"),
    ],
    ids=["a large profile", "a long text", "a long packed XMP", "a text without a keyword", "a damaged profile"],
)
def test_profiles_and_texts_do_not_matter(chunk: bytes, tmp_path: Path) -> None:
    for place in ("before", "behind"):
        file = put(tmp_path, "a.png", raw_png(SIZE, 8, 0, ROWS, **{place: chunk}))
        assert read(file).size == SIZE
        check_media(record(file))


def test_further_frames_and_pages_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [noise(), noise("L").convert("RGB")]
    moving = {
        form: encode(frames[0], form, save_all=True, append_images=frames[1:])
        for form in ("GIF", "PNG", "WEBP", "TIFF")
    }
    with caplog.at_level(logging.WARNING):
        MediaCheck().check(record(put(tmp_path, "still.png", png())))
    assert caplog.text == ""
    for form, content in moving.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            MediaCheck().check(record(put(tmp_path, f"1.{form}", content), put(tmp_path, f"2.{form}", content)))
        assert caplog.text.count("holds several frames or pages") == 1
    first = np.asarray(read(put(tmp_path, "a.gif", animation())))
    assert (first == (255, 0, 0)).all()
