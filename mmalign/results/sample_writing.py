"""Writes sampled records as JSON lines, and images among them as PNG files in a folder beside; all of it or nothing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.data.records import Media, Part, Record, Response
from mmalign.errors import DataError
from mmalign.feedback import Sampled
from mmalign.media.fetching import has_scheme
from mmalign.media.images import is_image

if TYPE_CHECKING:
    from PIL.Image import Image

_LONGEST = 60  # characters of a record's id in a file name


def write_samples(samples: Iterable[Sampled], output: Path) -> int:
    """Writes records; what they held before stays until all of it is there.

    The names of images hold their digest, so those that an earlier file of this name refers to stay as they are.

    Returns:
        how many images were written, to the folder `<stem>_images` beside `output`.

    Raises:
        DataError: the disk refuses.
    """
    folder = output.with_name(f"{output.stem}_images")
    rows, images = (path.with_name(f".{os.getpid()}.{path.name}") for path in (output, folder))
    with _refusals(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _refusals(output):
            rows.write_text("", encoding="utf-8")
        for sampled in samples:
            with _refusals(output), rows.open("a", encoding="utf-8") as file:
                file.write(f"{_store(sampled, images, folder).to_json()}\n")
        with _refusals(output):
            count = _move_files(images, folder)
            os.replace(rows, output)
    finally:
        rows.unlink(missing_ok=True)
        shutil.rmtree(images, ignore_errors=True)
    return count


@contextmanager
def _refusals(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror or error}") from None


def _store(sampled: Sampled, images: Path, folder: Path) -> Record:
    """Writes the images of a record to the folder `images`; returns it with paths as if they were in `folder`."""
    record = sampled.record
    media = {one.mid: _move_uri(one, folder.parent) for one in record.media}
    responses = []
    for response in record.responses:
        image = sampled.outputs[response.rid]
        if is_image(image):
            row = _write_image(image, f"{record.id}-{response.rid}", images, folder.name)
            media[row.mid] = row
            response = _with_image(response, row.mid)
        responses.append(response)
    return record.model_copy(update={"media": tuple(media.values()), "responses": tuple(responses)})


def _move_uri(media: Media, folder: Path) -> Media:
    """Makes a path that is relative to the current folder relative to another one."""
    if media.uri.startswith("data:") or has_scheme(media.uri) or Path(media.uri).is_absolute():
        return media
    return media.model_copy(update={"uri": os.path.relpath(media.uri, folder)})


def _write_image(image: Image, name: str, images: Path, folder: str) -> Media:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    safe = re.sub(r"[^\w-]", "_", name)[-_LONGEST:]
    file = f"{safe}-{digest[:12]}.png"
    images.mkdir(exist_ok=True)
    (images / file).write_bytes(buffer.getvalue())
    return Media(
        mid=f"sampled-{digest[:16]}",
        type="image",
        uri=f"{folder}/{file}",
        sha256=digest,
        width=image.width,
        height=image.height,
    )


def _with_image(response: Response, mid: str) -> Response:
    """Puts an image into the last assistant turn, in place of other images."""
    place = max(index for index, message in enumerate(response.messages) if message.role == "assistant")
    message = response.messages[place]
    content = (*(part for part in message.content if part.type != "image"), Part(type="image", media=mid))
    changed = message.model_copy(update={"content": content})
    return response.model_copy(
        update={"messages": (*response.messages[:place], changed, *response.messages[place + 1 :])}
    )


def _move_files(source: Path, target: Path) -> int:
    files = sorted(source.iterdir()) if source.is_dir() else []
    if files:
        target.mkdir(exist_ok=True)
    for file in files:
        os.replace(file, target / file.name)
    return len(files)
