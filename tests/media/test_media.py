"""Images read safely: pixels, turns and modes by known values, limits, damaged files of every kind, web addresses."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from image_files import SIZE, animation, bomb, encode, half_transparent, noise, png, put
from PIL import Image, ImageFile

from mmalign import Media, MediaError, MediaLimits, is_image, open_image
from mmalign.media.images import read_header
from mmalign.media.limits import LARGEST_PIXELS


def read(uri: object, limits: MediaLimits = MediaLimits(), **claims: Any) -> Image.Image:  # noqa: B008
    return open_image(Media(mid="m", type="image", uri=str(uri), **claims), where="here", limits=limits)


def pixels(image: Image.Image) -> Any:
    return np.asarray(image).tolist()


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP"])
def test_lossless_kinds_keep_their_pixels(form: str, tmp_path: Path) -> None:
    options = {"lossless": True} if form == "WEBP" else {}
    file = put(tmp_path, "a", encode(noise(), form, **options))
    assert pixels(read(file)) == pixels(noise())


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut(form: str, tmp_path: Path) -> None:
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    image = read(put(tmp_path, "a", encode(Image.fromarray(levels), form)))
    # 65535 = 255 * 257: half of 257 rounds to 0 below and to 1 above.
    assert image.mode == "L" and pixels(image) == [[0, 0, 1, 1, 128, 255]]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    one = Image.new("RGBA", (2, 1), (200, 100, 0, 51))
    one.putpixel((1, 0), (200, 100, 0, 255))
    # Alpha 51 is one fifth: 0.2 * 200 + 0.8 * 255 = 244, 0.2 * 100 + 204 = 224, 204.
    assert pixels(read(put(tmp_path, "a", encode(one, "PNG")))) == [[[244, 224, 204], [200, 100, 0]]]
    grey = read(put(tmp_path, "b", half_transparent("LA")))
    assert grey.mode == "L" and pixels(grey)[0] == [255] * 8 + [0] * 8
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    assert pixels(read(put(tmp_path, "c", encode(palette, "PNG", transparency=0)))) == [[[255] * 3, [9] * 3]]


def test_one_bit_and_grey_are_grey(tmp_path: Path) -> None:
    black_and_white = Image.new("1", (2, 1))
    black_and_white.putpixel((0, 0), 1)
    image = read(put(tmp_path, "a", encode(black_and_white, "PNG")))
    assert image.mode == "L" and pixels(image) == [[255, 0]]
    assert read(put(tmp_path, "b", encode(noise("L"), "PNG"))).mode == "L"


def test_cmyk_is_the_colour_that_is_printed(tmp_path: Path) -> None:
    cyan = Image.new("CMYK", SIZE, (255, 0, 0, 0))
    red, green, blue = read(put(tmp_path, "a.jpg", encode(cyan, "JPEG", quality=95))).getpixel((5, 5))  # type: ignore[misc]
    assert red < 8 and green > 247 and blue > 247


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    assert set(map(tuple, pixels(read(put(tmp_path, "a.gif", animation())))[3])) == {(255, 0, 0)}


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [[1, 2], [3, 4]]), (3, [[4, 3], [2, 1]]), (6, [[3, 1], [4, 2]]), (8, [[2, 4], [1, 3]])],
)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_exif_turns(form: str, orientation: int, expected: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.array([[1, 2], [3, 4]], dtype=np.uint8))
    assert pixels(read(put(tmp_path, "a", encode(image, form, exif=exif)))) == expected


def test_a_header_tells_the_size_as_shown_without_decoding(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    broken = encode(noise(), "JPEG", exif=exif)[:-50]
    media = Media(mid="m", type="image", uri=str(put(tmp_path, "a.jpg", broken)), width=12, height=16)
    header = read_header(media, where="here")
    assert (header.format, header.mode, header.width, header.height) == ("JPEG", "RGB", 12, 16)
    # A PNG that claims 60 million pixels and holds none has a header, too.
    claims = Media(mid="m", type="image", uri=str(put(tmp_path, "a.png", bomb(10_000, 6_000))))
    assert read_header(claims, where="here").width == 10_000


# -- limits -----------------------------------------------------------------------------------------------------------


def test_pixels_are_counted_before_anything_is_decoded(tmp_path: Path) -> None:
    file = put(tmp_path, "a.png", png())
    assert read(file, MediaLimits(pixels=16 * 12)).size == SIZE
    with pytest.raises(MediaError, match=r"here: .*a.png: it declares 16 x 12 = 192 pixels, more than .* 191"):
        read(file, MediaLimits(pixels=191))
    with pytest.raises(MediaError, match="81,000,000 pixels"):
        read(put(tmp_path, "b.png", bomb(9000, 9000)))
    assert LARGEST_PIXELS == 2 * (Image.MAX_IMAGE_PIXELS or 0)


def test_bytes_are_counted(tmp_path: Path) -> None:
    file = put(tmp_path, "a.png", png())
    data = "data:image/png;base64," + base64.b64encode(png()).decode()
    for uri in (file, data):
        assert read(uri, MediaLimits(size=len(png()))).size == SIZE
        with pytest.raises(MediaError, match=r"more than data.max_image_bytes"):
            read(uri, MediaLimits(size=len(png()) - 1))


def test_what_the_record_says_is_compared(tmp_path: Path) -> None:
    file = put(tmp_path, "a.png", png())
    digest = hashlib.sha256(png()).hexdigest()
    assert read(file, sha256=digest.upper(), width=16, height=12).size == SIZE
    with pytest.raises(MediaError, match="the record says height 13, the file 12"):
        read(file, width=16, height=13)
    with pytest.raises(MediaError, match="another file than the record means"):
        read(file, sha256=digest[::-1])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(MediaError, match="not a regular file"):
        read(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("x" * 300 + ".png", "File name too long"),
        ("a\0b.png", "null"),
        ("a.png/b.png", "Not a directory"),
        ("~nobody-of-this-name/a.png", "no such file; there is no folder"),
        ("", "a folder"),
    ],
)
def test_a_path_that_cannot_be(uri: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "a.png", png())
    with pytest.raises(MediaError, match=told) as caught:
        read(uri)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png;base64," + base64.b64encode(png()).decode().replace("+", "%2B").replace("=", "%3D"),
        "data:;base64," + "\n".join(base64.b64encode(png()).decode()[i : i + 60] for i in range(0, 1000, 60)),
        "data:image/png," + "".join(f"%{byte:02x}" for byte in png()),
    ],
    ids=["escaped", "broken into lines", "without base64"],
)
def test_data_uris(uri: str) -> None:
    assert pixels(read(uri)) == pixels(noise())


def test_a_long_data_uri_is_not_repeated_in_a_message() -> None:
    with pytest.raises(MediaError) as caught:
        read("data:image/png;base64," + base64.b64encode(b"no image" * 500).decode())
    assert len(str(caught.value)) < 300


def test_a_library_that_lets_pillow_fill_in_what_is_missing_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    cut = encode(noise(), "JPEG")[:-100]
    Image.open(io.BytesIO(cut)).load()  # grey where nothing is left
    with pytest.raises(MediaError, match="cut off"):
        read(put(tmp_path, "a.jpg", cut))
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_bytes_give_an_image_or_one_error(form: str, tmp_path: Path) -> None:
    whole = encode(noise(), form)
    chance = random.Random(form)
    errors = 0
    for _ in range(150):
        damaged = bytearray(whole[: chance.choice([len(whole), chance.randrange(1, len(whole))])])
        for _ in range(chance.randrange(4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        file = put(tmp_path, "a", bytes(damaged))
        for look in (read, lambda uri: read_header(Media(mid="m", type="image", uri=str(uri)), where="here")):
            try:
                look(file)
            except MediaError as error:
                errors += 1
                assert str(error).startswith(f"here: {file}: ") and "\n" not in str(error)
    assert errors > 20


def test_is_image() -> None:
    assert is_image(noise()) and not is_image("text") and not is_image(None)


# -- web addresses ----------------------------------------------------------------------------------------------------


class Web(BaseHTTPRequestHandler):
    """Answers by path; `asked` are the paths in order."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.partition("?")[0]
        if name == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/a.png")
        else:
            self.send_response(404 if name == "/none.png" else 200)
        self.end_headers()
        if name == "/a.png":
            self.wfile.write(png())
        elif name == "/page.png":
            self.wfile.write(b"<html>not found</html>")
        elif name == "/endless.png":
            self.send_endless()

    def send_endless(self) -> None:
        try:
            while True:
                self.wfile.write(b"\x89PNG")
                time.sleep(0.02)
        except OSError:
            pass

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    Web.asked.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


REMOTE = MediaLimits(remote=True, timeout=0.5, private_hosts=("127.0.0.1",))


def test_nothing_is_fetched_unless_it_is_allowed(web: str) -> None:
    with pytest.raises(MediaError, match=r"set data.allow_remote_media: true"):
        read(f"{web}/a.png")
    assert Web.asked == []


def test_an_allowed_address_is_fetched(web: str) -> None:
    digest = hashlib.sha256(png()).hexdigest()
    assert pixels(read(f"{web}/a.png?key=x", REMOTE, sha256=digest)) == pixels(noise())
    assert read(f"{web}/moved.png", REMOTE).size == SIZE
    assert Web.asked == ["/a.png?key=x", "/moved.png", "/a.png"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("none.png", "cannot be fetched: HTTP 404"),
        ("page.png", "no image of a known kind"),
        ("endless.png", "not done within 0.5 s"),
    ],
)
def test_an_address_that_fails(web: str, path: str, told: str) -> None:
    with pytest.raises(MediaError, match=told) as caught:
        read(f"{web}/{path}?key=secret", REMOTE)
    assert str(caught.value).startswith(f"here: {web}/{path}: ") and "secret" not in str(caught.value)


def test_an_answer_that_is_too_long_is_not_read_to_its_end(web: str) -> None:
    with pytest.raises(MediaError, match=r"more than data.max_image_bytes, 8"):
        read(f"{web}/endless.png", MediaLimits(remote=True, size=8, private_hosts=("127.0.0.1",)))


def test_no_server() -> None:
    with pytest.raises(MediaError, match=r"here: http://127.0.0.1:9/a.png: cannot be fetched: ConnectError"):
        read("http://127.0.0.1:9/a.png", REMOTE)
