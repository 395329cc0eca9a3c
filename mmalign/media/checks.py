"""The images and sounds of records: checked when data are read, skipped or refused when one becomes unreadable later.

When data are read, a record with a bad one is a bad row: `on_error` decides. While a run goes on, an image may still
turn out to be cut off, or vanish with its disk; the same setting decides. A skipped record keeps its place in the order
of the data, so that whatever comes after it is what would have come without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mmalign.data.records import Media, Record
from mmalign.errors import DataError, MediaError
from mmalign.media.fetching import is_web_address, show_uri
from mmalign.media.images import open_image, read_header
from mmalign.media.limits import DEFAULT_LIMITS, MediaLevel, MediaLimits
from mmalign.media.sounds import decode_sound, read_sound_header

T = TypeVar("T")
logger = logging.getLogger(__name__)


_LOOKS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "image": (read_header, open_image),
    "audio": (read_sound_header, decode_sound),
}
"""What is checked: by its header, and by decoding all of it."""


def check_media(record: Record, *, level: MediaLevel = "header", limits: MediaLimits = DEFAULT_LIMITS) -> None:
    """Checks the images and sounds of a record; video and latents are left to whoever reads them.

    Args:
        level: `header` reads what each file says of itself, and leaves alone what would have to be fetched; `full`
            decodes everything.

    Raises:
        MediaError: the first image that cannot be read; the message begins with its place in the record.
    """
    MediaCheck(level, limits).check(record)


@dataclass
class MediaCheck:
    """Checks media as `check_media` does; what many records share is looked at once."""

    level: MediaLevel = "header"
    limits: MediaLimits = DEFAULT_LIMITS
    _known: dict[Media, str] = field(default_factory=dict)
    _several: bool = False

    def check(self, record: Record) -> None:
        """Raises MediaError as `check_media` does."""
        for index, media in enumerate(record.media):
            if self.level == "off" or media.type not in _LOOKS:
                continue
            key = media.model_copy(update={"mid": ""})
            if key not in self._known:
                self._known[key] = self._find_problem(media)
            if self._known[key]:
                raise MediaError(f"media[{index}].uri: {self._known[key]}")

    def _find_problem(self, media: Media) -> str:
        if self.level == "header" and self.limits.remote and is_web_address(media.uri):
            return ""
        header, full = _LOOKS[media.type]
        try:
            if self.level == "header" or not is_web_address(media.uri):  # which would be fetched twice
                self._say_several(media, header(media, where="", limits=self.limits))
            if self.level == "full":
                full(media, where="", limits=self.limits)
        except MediaError as error:
            return str(error).removeprefix(": ")
        return ""

    def _say_several(self, media: Media, header: Any) -> None:
        if getattr(header, "several", False) and not self._several:
            self._several = True
            told = "holds several frames or pages; of such images the first is read (said once)"
            logger.warning("%s %s", show_uri(media.uri), told)


def repeat_choice(left_out: Collection[str]) -> Callable[[Record], None]:
    """Returns a check that leaves out the records with these ids and no others.

    A resumed run must see the records that it began with, in the same order, whatever became of their media.
    """

    def check(record: Record) -> None:
        if record.id in left_out:
            raise MediaError("left out, as at the start of this run")

    return check


@dataclass
class MediaSkips:
    """What happens to records whose media cannot be read, or that cannot be encoded, while a run goes on.

    Attributes:
        quarantine: True to skip the record and count it, False to stop.
        limits: of images and sounds.
        skipped: ids of the records that were skipped so far, in this process.
        flags: 1 for a record that was skipped, 0 for one that was used, since they were last taken.
    """

    quarantine: bool
    limits: MediaLimits = DEFAULT_LIMITS
    skipped: set[str] = field(default_factory=set)
    flags: list[float] = field(default_factory=list)

    def apply(self, records: Sequence[Record], function: Callable[[Record], T]) -> list[tuple[Record, T]]:
        """Applies a function that encodes, and may read media, to every record; leaves out those that it refuses.

        Raises:
            DataError: it refuses one, and records are not skipped; or no record is left. Then most likely not the
                media are broken, but the way to them.
        """
        kept: list[tuple[Record, T]] = []
        last: DataError | None = None
        for record in records:
            try:
                kept.append((record, function(record)))
            except DataError as error:
                self._skip(record, error)
                last = error
        self.flags += [1.0] * (len(records) - len(kept)) + [0.0] * len(kept)
        if records and not kept:
            what = "has images and sounds that can be read" if isinstance(last, MediaError) else "can be encoded"
            raise DataError(f"none of {len(records)} records {what}; the last one: {last}")
        return kept

    def keep_readable(self, records: Iterable[Record]) -> list[Record]:
        """Returns the records whose media can be decoded; all of them, unlooked at, where none may be skipped."""
        if not self.quarantine:
            return list(records)
        return [record for record, _ in self.apply(list(records), self._decode)]

    def take_flags(self) -> list[float]:
        """Returns `flags` and forgets them."""
        flags, self.flags = self.flags, []
        return flags

    def _decode(self, record: Record) -> None:
        for media in record.media:
            if media.type in _LOOKS:
                _LOOKS[media.type][1](media, where=f"record {record.id!r}", limits=self.limits)

    def _skip(self, record: Record, error: DataError) -> None:
        if not self.quarantine:
            raise error
        if record.id not in self.skipped:
            self.skipped.add(record.id)
            logger.warning("skipped, and counted in the metric `unreadable`: %s", error)
