"""Small media files of every kind that is read, and mutations of them, always the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from image_files import encode, noise
from sound_files import encode_sound, levels, sine, wav

IMAGES = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")
SOUNDS = ("WAV", "FLAC", "OGG", "MP3")
_EDGES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0")


def whole_file(kind: str) -> bytes:
    """A file of a kind with more than the least in it: frames, an orientation, two channels."""
    if kind in SOUNDS:
        two = np.stack([sine(), -sine()], axis=1)
        return wav(levels(two, 2)) if kind == "WAV" else encode_sound(two, kind)
    exif = type(noise().getexif())()
    exif[0x0112] = 6
    options = {"save_all": True, "append_images": [noise().rotate(90)]} if kind in ("GIF", "WEBP") else {}
    return encode(noise(), kind, **options, **({} if kind in ("GIF", "BMP") else {"exif": exif}))


def mutate(whole: bytes, count: int, seed: str) -> Iterator[bytes]:
    """Yields files with wrong bytes, wrong lengths, pieces that are cut out, doubled or moved, and cut ends."""
    chance = random.Random(seed)
    for _ in range(count):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            # Half of the mutations fall on the first bytes, where headers are.
            place = chance.randrange(min(len(content), chance.choice([64, len(content)])) or 1)
            length = chance.randrange(1, 40)
            piece = bytes(content[place : place + length])
            match chance.randrange(6):
                case 0 | 1:
                    content[place : place + 1] = bytes([chance.randrange(256)])
                case 2:
                    content[place : place + 4] = chance.choice(_EDGES)
                case 3:
                    del content[place : place + length]
                case 4:
                    content[place:place] = piece * chance.randrange(1, 4)
                case 5:
                    del content[chance.randrange(1, len(content) + 1) :]
        yield bytes(content)
