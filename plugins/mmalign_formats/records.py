"""Records as they are: the layout of mmalign itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmalign import Layout, Record, record_schema

_SURE = 100


class RecordLayout(Layout):
    """Reads and writes records, one a row."""

    def recognise(self, columns: Mapping[str, Any], strength: int) -> int:
        """Returns a number above all others where `schema` stands, or responses with ids."""
        responses = columns.get("responses")
        listed = isinstance(responses, list | tuple) and all(isinstance(one, Mapping) for one in responses)
        return _SURE if "schema" in columns or listed else strength

    def read(self, columns: Mapping[str, Any], name: str) -> Record:
        """Checks the row; the id is its own."""
        return Record.from_dict(columns)

    def write(self, record: Record) -> Sequence[Mapping[str, Any]]:
        """Returns the record."""
        return [record.to_dict()]

    def schema(self) -> Any:
        """Returns the Arrow schema of records."""
        return record_schema()
