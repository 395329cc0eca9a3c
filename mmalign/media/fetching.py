"""The bytes behind the URI of a `Media` row: a file, a `data:` URI, or, where that is allowed, another machine."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
from io import BytesIO
from itertools import islice
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from mmalign.addresses import show_address
from mmalign.errors import MediaError
from mmalign.media.web import fetch

if TYPE_CHECKING:
    from mmalign.data.record_rows import Media
    from mmalign.media.limits import MediaLimits

_SHOWN = 40  # characters of a long URI that a message quotes
_LISTED = 10_000  # files of a folder that are looked through for a similar name
_WEB = ("http", "https")


def read_bytes(media: Media, limits: MediaLimits) -> bytes:
    """Reads all bytes and compares their sha256 with that of the record, if it has one.

    Raises:
        MediaError: nothing is there, too much is there, or it is something else; the message lacks the place.
    """
    with open_bytes(media, limits) as file:
        content = file.read(limits.size + 1)
    _check_size(len(content), limits)
    digest = hashlib.sha256(content).hexdigest()
    if media.sha256 is not None and digest != media.sha256.lower():
        raise MediaError(
            f"another file than the record means: its sha256 is {digest[:12]}..., not {media.sha256[:12]}..."
        )
    return content


def open_bytes(media: Media, limits: MediaLimits) -> IO[bytes]:
    """Opens the bytes for reading; a local file is not read yet. Raises as `read_bytes` does."""
    if media.uri.startswith("data:"):
        return BytesIO(_decode_data(media.uri, limits))
    if "://" in media.uri:
        if not is_web_address(media.uri):
            scheme = media.uri.partition("://")[0]
            raise MediaError(f"{scheme[:_SHOWN]}:// is not read; expected a path, a data: URI, http:// or https://")
        content = fetch(media.uri, limits)
        _check_size(len(content), limits)
        return BytesIO(content)
    return _open_file(Path(media.uri), limits)


def has_scheme(uri: str) -> bool:
    """Returns whether a URI is neither a path nor a `data:` URI."""
    return "://" in uri and not uri.startswith("data:")


def is_web_address(uri: str) -> bool:
    """Returns whether a URI is of http or https."""
    return uri.partition("://")[0].lower() in _WEB


def show_uri(uri: str) -> str:
    """Words a URI for messages: without what may be secret in an address, and not the content of a `data:` URI."""
    if uri.startswith("data:"):
        return uri if len(uri) <= _SHOWN else f"{uri[:_SHOWN]}... ({len(uri)} characters)"
    return show_address(uri) if has_scheme(uri) else uri


def _check_size(size: int, limits: MediaLimits) -> None:
    if size == 0:
        raise MediaError("the file is empty")
    if size > limits.size:
        raise MediaError(f"the file has more than data.max_image_bytes, {limits.size:,}")


def _open_file(path: Path, limits: MediaLimits) -> IO[bytes]:
    try:
        status = path.stat()
        if S_ISDIR(status.st_mode):
            raise MediaError("a folder; expected an image file")
        if not S_ISREG(status.st_mode):
            raise MediaError("not a regular file")  # reading a pipe or a device may never end
        _check_size(status.st_size, limits)
        return path.open("rb")
    except FileNotFoundError:
        raise MediaError(f"no such file{_nearest(path)}") from None
    except (OSError, ValueError) as error:  # a null byte is a ValueError
        raise MediaError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _nearest(path: Path) -> str:
    try:
        names = [entry.name for entry in islice(path.parent.iterdir(), _LISTED)]
    except OSError:
        return f"; there is no folder {str(path.parent)!r}"
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {str(path.parent / close[0])!r}?" if close else ""


def _decode_data(uri: str, limits: MediaLimits) -> bytes:
    kind, comma, text = uri.removeprefix("data:").partition(",")
    if not comma:
        raise MediaError("a data: URI without a comma; expected data:image/png;base64,...")
    if len(text) > 4 * limits.size:  # three characters a byte at most, and line breaks
        _check_size(len(text), limits)
    content = unquote_to_bytes(text)
    if kind.endswith(";base64"):
        try:
            content = base64.b64decode(b"".join(content.split()), validate=True)
        except binascii.Error:
            raise MediaError("a data: URI that is not base64") from None
    _check_size(len(content), limits)
    return content
