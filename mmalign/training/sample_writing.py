"""Writes sampled records as JSON lines, with images, sounds and arrays as files beside; all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.data.records import Media, Part, Record, Response
from mmalign.errors import DataError
from mmalign.media.fetching import has_scheme
from mmalign.media.outputs import OutputFile, encode_output, is_text
from mmalign.training.feedback import Sampled

_LONGEST = 60  # characters of a record's id in a file name


def write_samples(samples: Iterable[Sampled], output: Path) -> Counter[str]:
    """Writes records; what they held before stays until all of it is there.

    The names of files hold their digest, so those that an earlier file of this name refers to stay as they are.

    Returns:
        how many files were written, by folder beside `output`: `<stem>_images`, `<stem>_sounds`, `<stem>_arrays`.

    Raises:
        DataError: the disk refuses, or a sound has samples that are none.
    """
    rows, files = (output.with_name(f".{os.getpid()}.{name}") for name in (output.name, f"{output.stem}_files"))
    with _refusals(output):
        output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _refusals(output):
            rows.write_text("", encoding="utf-8")
        for sampled in samples:
            with _refusals(output), rows.open("a", encoding="utf-8") as file:
                file.write(f"{_store(sampled, files, output).to_json()}\n")
        with _refusals(output):
            counts = _move_files(files, output.parent)
            os.replace(rows, output)
    finally:
        rows.unlink(missing_ok=True)
        shutil.rmtree(files, ignore_errors=True)
    return counts


@contextmanager
def _refusals(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror or error}") from None


def _store(sampled: Sampled, files: Path, output: Path) -> Record:
    """Writes what is no text of a record below `files`; returns it with paths as if that were where `output` is."""
    record = sampled.record
    media = {one.mid: _move_uri(one, output.parent) for one in record.media}
    responses = []
    for response in record.responses:
        shown = sampled.outputs[response.rid]
        if not is_text(shown):
            row = _write_file(encode_output(shown), f"{record.id}-{response.rid}", files, output.stem)
            media[row.mid] = row
            response = _with_media(response, row)
        responses.append(response)
    return record.model_copy(update={"media": tuple(media.values()), "responses": tuple(responses)})


def _move_uri(media: Media, folder: Path) -> Media:
    """Makes a path that is relative to the current folder relative to another one."""
    if media.uri.startswith("data:") or has_scheme(media.uri) or Path(media.uri).is_absolute():
        return media
    return media.model_copy(update={"uri": os.path.relpath(media.uri, folder)})


def _write_file(written: OutputFile, name: str, files: Path, stem: str) -> Media:
    digest = hashlib.sha256(written.content).hexdigest()
    safe = re.sub(r"[^\w-]", "_", name)[-_LONGEST:]
    folder, file = f"{stem}_{written.folder}", f"{safe}-{digest[:12]}{written.suffix}"
    (files / folder).mkdir(parents=True, exist_ok=True)
    (files / folder / file).write_bytes(written.content)
    return written.row(f"sampled-{digest[:16]}", f"{folder}/{file}", digest)


def _with_media(response: Response, media: Media) -> Response:
    """Puts an image or sound into the last assistant turn, in place of others; an array, no part of one, is a param."""
    if media.type == "latent":
        params = {**json.loads(response.params or "{}"), "output": media.mid}
        return response.model_copy(update={"params": json.dumps(params)})
    place = max(index for index, message in enumerate(response.messages) if message.role == "assistant")
    message = response.messages[place]
    part = Part.model_validate({"type": media.type, "media": media.mid})
    changed = message.model_copy(update={"content": (*(one for one in message.content if one.type != part.type), part)})
    return response.model_copy(
        update={"messages": (*response.messages[:place], changed, *response.messages[place + 1 :])}
    )


def _move_files(source: Path, target: Path) -> Counter[str]:
    """Moves files of a folder's folders into folders of the same names; counts them by these."""
    counts: Counter[str] = Counter()
    for folder in sorted(source.iterdir()) if source.is_dir() else []:
        (target / folder.name).mkdir(exist_ok=True)
        for file in sorted(folder.iterdir()):
            os.replace(file, target / folder.name / file.name)
            counts[folder.name] += 1
    return counts
