"""PNG files as a decoder should see them: without profiles and texts, and with their orientation before the pixels.

Colour profiles are not applied and texts not read, so that neither their size nor what is wrong with them matters. An
orientation may stand behind the pixels, where it would be found only by decoding them.
"""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from typing import IO

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_TEXTS = (b"iCCP", b"zTXt", b"tEXt", b"iTXt")
_ORIENTING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # keywords of texts that may hold an orientation
_LONGEST = 2**20  # bytes of a text beyond which Pillow takes it for an attack, and we for no orientation


def tidy_png(file: IO[bytes], *, pixels: bool) -> BytesIO:
    """Returns a PNG file as described above; where chunks do not follow each other, it ends as the file does.

    Args:
        file: at its beginning.
        pixels: False to leave them out, which is enough to read the header.
    """
    before: list[bytes] = [file.read(len(SIGNATURE))]
    behind: list[bytes] = []
    while len(head := file.read(8)) == 8:
        size, name = struct.unpack(">L4s", head)
        left_out = name in (b"IDAT", b"fdAT") and not pixels
        content = b"" if left_out else file.read(size + 4)  # with its checksum
        if left_out:
            file.seek(size + 4, os.SEEK_CUR)
        if name in _TEXTS and not _may_orient(name, content[:-4]):
            continue
        orients = name in _TEXTS or name == b"eXIf"
        (behind if (behind or name == b"IDAT") and not orients else before).append(head + content)
    return BytesIO(b"".join([*before, *(behind if pixels else behind[:1]), head]))


def _may_orient(name: bytes, content: bytes) -> bool:
    """Returns whether a text is one that may hold an orientation, and not too long to be looked at."""
    keyword = next((one for one in _ORIENTING if content.startswith(one)), None)
    if keyword is None or name == b"iCCP":
        return False
    text = content[len(keyword) :]
    if name == b"zTXt":  # a byte for the method stands before it
        return _unpacks(text[1:])
    if name == b"iTXt" and text[:1] == b"\1":
        return _unpacks(text[2:].split(b"\0", 2)[-1])  # behind the language and the translated keyword
    return len(text) <= _LONGEST


def _unpacks(content: bytes) -> bool:
    try:
        return len(zlib.decompressobj().decompress(content, _LONGEST + 1)) <= _LONGEST
    except zlib.error:
        return False
