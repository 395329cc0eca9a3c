"""Images, videos and sounds of rows: what a column holds, and where in the text each of them stands."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from mmalign import DataError, message_from_chat

Turn: TypeAlias = dict[str, Any]
MediaType: TypeAlias = Literal["image", "video", "audio"]

MEDIA_COLUMNS: dict[MediaType, tuple[str, str]] = {
    "image": ("images", "image"),
    "video": ("videos", "video"),
    "audio": ("audios", "audio"),
}
"""The columns that hold media of a type: a list, or a single one."""
COLUMN_NAMES = tuple(name for names in MEDIA_COLUMNS.values() for name in names)

_PAYLOADS = ("image", "url", "path", "video", "audio", "image_url", "video_url")
_SIGNATURES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"II+\x00": "image/tiff",
    b"MM\x00+": "image/tiff",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
}
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}


def guess_type(content: bytes) -> str:
    """Returns the media type of a file by its first bytes; `application/octet-stream` if they are not known."""
    if content.startswith(b"RIFF"):
        return _RIFF.get(content[8:12], "application/octet-stream")
    if content[4:8] == b"ftyp":
        return "video/mp4"
    found = (kind for signature, kind in _SIGNATURES.items() if content.startswith(signature))
    return next(found, "application/octet-stream")


def data_uri(content: bytes) -> str:
    """Returns a file as a `data:` URI."""
    return f"data:{guess_type(content)};base64,{base64.b64encode(content).decode()}"


def read_media(value: Any, place: str, kind: MediaType = "image") -> str:
    """Returns the URI of an image, video or sound: a path or URI as it is, embedded bytes as a `data:` URI.

    Raises:
        DataError: neither, e.g. decoded pixels; the message starts with `place`.
    """
    if isinstance(value, Mapping):
        # OpenAI's parts have {"url": ...} below `image_url`.
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, bytes):
        found = guess_type(value)
        if not found.startswith(kind):
            known = {"image": "PNG, JPEG, WebP, GIF, TIFF or BMP", "audio": "WAV, FLAC, OGG or MP3", "video": "MP4"}
            raise DataError(f"{place}: unknown {kind} format; expected {known[kind]}")
        return data_uri(value)
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: expected a path, a URI or bytes, got {type(value).__name__}")
    return value


class RowMedia:
    """The media of a row, handed out to the placeholders in order.

    Attributes:
        used: the rows of the record's `media`.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.used: list[Turn] = []
        self._given = {kind: _list_column(columns, kind) for kind in MEDIA_COLUMNS}
        self._left: dict[str, Iterator[str]] = {kind: iter(uris) for kind, uris in self._given.items()}

    def add_placeholders(self, turns: Sequence[Turn], prompt: Sequence[Turn]) -> None:
        """Makes placeholders of the words `<image>` and the like; without any, before the first user message, as TRL.

        Only of types of which the row has media, and not in the assistant's words, a word is a placeholder.
        """
        for kind, uris in self._given.items():
            if not uris:
                continue
            for turn in turns:
                if turn["role"] != "assistant":
                    turn["content"] = [piece for part in list_parts(turn) for piece in _split_words(part, kind)]
            if not any(_part_type(part) == kind for turn in turns for part in list_parts(turn)):
                first = next((turn for turn in prompt if turn["role"] == "user"), prompt[0])
                first["content"] = [{"type": kind}] * len(uris) + list_parts(first)

    def fill(self, turn: Turn) -> Turn:
        """Returns the turn as a record's message, its parts that are no text pointing to media."""
        row = message_from_chat(turn)
        parts = row.get("content")
        return row | ({"content": [self._fill_part(part) for part in parts]} if isinstance(parts, list) else {})

    def add(self, uri: str, kind: MediaType = "image") -> Turn:
        """Adds one that no placeholder stands for; returns the part that shows it."""
        mid = f"m{len(self.used) + 1}"
        self.used.append({"mid": mid, "type": kind, "uri": uri})
        return {"type": kind, "media": mid}

    def _fill_part(self, part: Any) -> Any:
        if not isinstance(part, Mapping) or (kind := _part_type(part)) is None:
            return (
                {key: value for key, value in part.items() if value is not None} if isinstance(part, Mapping) else part
            )
        kept = {key: value for key, value in part.items() if value is not None and key != "type"}
        own = next((kept.pop(key) for key in _PAYLOADS if key in kept), None)
        uri = read_media(own, kind, kind) if own is not None else next(self._left[kind], None)
        if uri is None:
            raise DataError(self._describe(kind, "more"))
        return {**kept, **self.add(uri, kind)}

    def check_all_used(self) -> None:
        """Raises DataError if one of them found no placeholder."""
        for kind, left in self._left.items():
            unused = sum(1 for _ in left)
            if unused:
                raise DataError(
                    self._describe(cast(MediaType, kind), str(len(self._given[cast(MediaType, kind)]) - unused))
                )

    def _describe(self, kind: MediaType, placeholders: str) -> str:
        count, column = len(self._given[kind]), MEDIA_COLUMNS[kind][0]
        return (
            f"{column}: {count} {column}, but {placeholders} placeholders (parts of type {kind} and words <{kind}>); "
            "expected one each"
        )


def list_parts(turn: Turn) -> list[Any]:
    """Returns the content of a chat message as a list of parts."""
    content = turn.get("content")
    if content is not None and not isinstance(content, str | list):
        raise DataError(f"content: expected a string or a list of parts, got {type(content).__name__}")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def _list_column(columns: Mapping[str, Any], kind: MediaType) -> list[str]:
    many, single = MEDIA_COLUMNS[kind]
    given = columns.get(many, columns.get(single))
    listed = given if isinstance(given, list | tuple) else [] if given is None else [given]
    return [read_media(one, f"{many}[{place}]", kind) for place, one in enumerate(listed)]


def _part_type(part: Any) -> MediaType | None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str):
        kind = kind.removesuffix("_url")
        if kind in MEDIA_COLUMNS:
            return kind
    return None


def _split_words(part: Any, kind: MediaType) -> list[Any]:
    """Splits a text at the words that stand for media of a type, which become parts of their own."""
    word = f"<{kind}>"
    if not isinstance(part, Mapping) or part.get("type") != "text" or word not in str(part.get("text")):
        return [part]
    pieces: list[Any] = []
    for place, text in enumerate(str(part["text"]).split(word)):
        pieces += [{"type": kind}] if place else []
        pieces += [{"type": "text", "text": text}] if text else []
    return pieces
