"""Media as part of the data: files beside a data file become `data:` URIs."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path

from mmalign.data.records import Media, Record
from mmalign.errors import MediaError
from mmalign.media.fetching import has_scheme, read_bytes
from mmalign.media.limits import DEFAULT_LIMITS, MediaLimits


def embed_media(record: Record, folder: Path, limits: MediaLimits = DEFAULT_LIMITS) -> Record:
    """Replaces the paths of media that lie below `folder` by what the files hold.

    Other paths and addresses stay: data must not choose files of the reader's machine to be packed.

    Raises:
        MediaError: a file cannot be read; the message begins with its place in the record.
    """
    media = tuple(_embed(one, folder, limits, index) for index, one in enumerate(record.media))
    return record.model_copy(update={"media": media}) if media != record.media else record


def _embed(media: Media, folder: Path, limits: MediaLimits, index: int) -> Media:
    if media.uri.startswith("data:") or has_scheme(media.uri):
        return media
    path = (folder / media.uri).resolve()
    if not path.is_relative_to(folder.resolve()):
        return media
    try:
        content = read_bytes(media.model_copy(update={"uri": str(path)}), limits)
    except MediaError as error:
        raise MediaError(f"media[{index}].uri: {error}") from None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return media.model_copy(update={"uri": f"data:{kind};base64,{base64.b64encode(content).decode()}"})
