"""Wrong image files: each is one message that names the place, the file and what is wrong with it.

The table in `docs/data.md` is what these tests measured; write it anew with
`MMALIGN_WRITE_DOCS=1 python -m pytest tests/faults/test_wrong_media.py`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import SIZE, animation, bomb, encode, half_transparent, noise, png, put, turned
from PIL import Image

from mmalign import Media, MediaError, open_image
from mmalign.cli.main import main
from mmalign.media.images import read_header

PAGE = Path(__file__).with_name("wrong_images.md")
SIXTEEN = Image.fromarray((np.arange(192).reshape(12, 16) * 341).astype(np.uint16))


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


Case = tuple[str, Callable[[], bytes], dict[str, Any]]

# What is injected: the file's name, its bytes, and what the record says of it.
CASES: dict[str, Case] = {
    "PNG": ("a.png", png, {"width": 16, "height": 12}),
    "JPEG": ("a.jpg", lambda: encode(noise(), "JPEG"), {}),
    "JPEG to be turned (EXIF)": ("a.jpg", turned, {"width": 12, "height": 16}),
    "JPEG in CMYK": ("a.jpg", lambda: encode(noise("CMYK"), "JPEG"), {}),
    "JPEG named .png": ("a.png", lambda: encode(noise(), "JPEG"), {}),
    "WebP": ("a.webp", lambda: encode(noise(), "WEBP"), {}),
    "TIFF, 16 bits": ("a.tif", lambda: encode(SIXTEEN, "TIFF"), {}),
    "GIF, animated": ("a.gif", animation, {}),
    "PNG with a palette": ("a.png", lambda: encode(noise().convert("P"), "PNG"), {}),
    "PNG, half transparent": ("a.png", half_transparent, {}),
    "TIFF, 32 bits": ("a.tif", lambda: encode(Image.new("F", SIZE), "TIFF"), {}),
    "PNG, cut at half": ("a.png", lambda: half(png()), {}),
    "JPEG, cut at half": ("a.jpg", lambda: half(encode(noise(), "JPEG")), {}),
    "WebP, cut at half": ("a.webp", lambda: half(encode(noise(), "WEBP")), {}),
    "GIF, cut at half": ("a.gif", lambda: half(encode(noise(size=(64, 64)), "GIF")), {}),
    "TIFF, cut at half": ("a.tif", lambda: half(encode(noise(), "TIFF")), {}),
    "PNG that claims 60000 x 60000": ("a.png", bomb, {}),
    "PNG that claims 9000 x 9000": ("a.png", lambda: bomb(9000, 9000), {}),
    "PNG that claims 0 x 8": ("a.png", lambda: bomb(0, 8), {}),
    "PNG with a flipped byte": ("a.png", lambda: png()[:60] + b"\x00" + png()[61:], {}),
    "text named .png": ("a.png", lambda: b"this is a text\n", {}),
    "web page named .jpg": ("a.jpg", lambda: b"<!DOCTYPE html><html>", {}),
    "PostScript named .png": ("a.png", lambda: b"%!PS-Adobe-3.0 EPSF", {}),
    "no bytes": ("a.png", lambda: b"", {}),
    "another sha256": ("a.png", png, {"sha256": "0" * 64}),
    "another width": ("a.png", png, {"width": 99, "height": 12}),
    "misspelt name": ("images.png", png, {"uri": "imagse.png"}),
    "missing folder": ("a.png", png, {"uri": "nowhere/a.png"}),
    "a folder": ("a.png", png, {"uri": "."}),
    "data: URI": ("a.png", png, {"uri": "data:image/png;base64," + base64.b64encode(png()).decode()}),
    "data: URI that is no base64": ("a.png", png, {"uri": "data:image/png;base64,a*b"}),
    "http address": ("a.png", png, {"uri": "https://me:secret@example.org/a.png?key=secret"}),
    "ftp address": ("a.png", png, {"uri": "ftp://example.org/a.png"}),
}


def make_media(folder: Path, injected: str) -> Media:
    name, content, claims = CASES[injected]
    put(folder, name, content())
    return Media(**{"mid": "m", "type": "image", "uri": name, **claims})


def outcome(function: Callable[[], Any]) -> str:
    """What comes out: the image, or the message without the place and the file that it must begin with."""
    try:
        image = function()
    except MediaError as error:
        place, file, told = str(error).split(": ", maxsplit=2)
        assert place == "train.jsonl:3" and file
        return f"`{shorten(told)}`"
    return f"{image.width} x {image.height}, {image.mode}"


def shorten(told: str) -> str:
    """Leaves out what depends on the version of a library."""
    return re.sub(r"(damaged or cut off) \(.*\)", r"\1", told).removeprefix("//example.org/a.png: ")


def expect(injected: str, header: str, image: str) -> None:
    """Compares a measured row with the one in the table beside this file, or writes it there."""
    first = f"| {injected} | "
    line = f"{first}{header if header != image else 'the same'} | {image} |"
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    if os.environ.get("MMALIGN_WRITE_DOCS"):
        places = [index for index, old in enumerate(lines) if old.startswith(first)]
        end = max(index for index, old in enumerate(lines) if old.startswith("|"))
        lines = [line if index in places else old for index, old in enumerate(lines)]
        lines[end + 1 : end + 1] = [] if places else [line]
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert line in lines


@pytest.mark.parametrize("injected", CASES)
def test_an_image_file(injected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    media = make_media(tmp_path, injected)
    header = outcome(lambda: read_header(media, where="train.jsonl:3"))
    image = outcome(lambda: open_image(media, where="train.jsonl:3"))
    assert "secret" not in header + image
    expect(injected, header, image)


def test_every_row_of_the_table_is_measured() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| injected |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([^|-][^|]+) \|", table, flags=re.MULTILINE) == list(CASES)


def record_of(media: Media) -> str:
    content = [{"type": "image", "media": "m"}]
    row = {"id": "x", "schema": "mmalign/1", "prompt": [{"role": "user", "content": content}]}
    return json.dumps({**row, "media": [media.model_dump(exclude_none=True)]}) + "\n"


@pytest.mark.parametrize("level", ["header", "full", "off"])
@pytest.mark.parametrize("injected", CASES)
def test_a_wrong_image_is_one_message_of_validate(
    injected: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    media = make_media(tmp_path, injected)
    (tmp_path / "train.jsonl").write_text(record_of(media))
    check = {"header": read_header, "full": open_image}.get(level)
    wrong = check is not None and outcome(lambda: check(media, where="train.jsonl:3")).startswith("`")
    if media.uri.startswith("https:"):
        wrong = level == "full"  # the command does not know what a run will allow, and fetches nothing for a header
    monkeypatch.setattr(sys, "argv", ["mmalign", "data", "validate", "train.jsonl", "--check-media", level])
    with pytest.raises(SystemExit) as stopped:
        main()
    message = capsys.readouterr().err
    if not wrong:
        assert not stopped.value.code and (not message or "several frames" in message)
        return
    assert stopped.value.code == 2 and "Traceback" not in message
    assert len(message.strip().splitlines()) == 1
    assert message.startswith("error: train.jsonl:1: media[0].uri: ")
