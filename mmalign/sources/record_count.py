"""How many records a transform takes and gives, and how many it leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mmalign.data.records import Record


class RecordCount:
    """Counts records on both sides of a transform.

    Args:
        remember: compare ids, so that a record that is left out shows where others are split; not for endless streams.
    """

    def __init__(self, *, remember: bool) -> None:
        self._remember = remember
        self._taken: set[str] = set()
        self._given: set[str] = set()
        self._in = 0
        self._out = 0

    def watch_input(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields records as they come, and counts them."""
        for record in records:
            self._in += 1
            if self._remember:
                self._taken.add(record.id)
            yield record

    def watch_output(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yields records as they come, and counts them."""
        for record in records:
            self._out += 1
            if self._remember:
                self._given.add(record.id)
            yield record

    @property
    def left_out(self) -> int:
        """How many records were taken of which nothing was given, by their ids where those were kept."""
        if self._taken & self._given:
            return len(self._taken - self._given)
        return max(0, self._in - self._out)

    def describe(self, reasons: Mapping[str, int]) -> str:
        """Words what was left out; empty if nothing was.

        Args:
            reasons: how many were left out for each reason, as the transform says.
        """
        if not self.left_out and not reasons:
            return ""
        told = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
        return f"left out {self.left_out} of {self._in} records" + (f": {told}" if told else "; it gives no reason")
