"""Rows of a layout as records, and back, the way sources and `data convert` go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmalign.data.records import Record
from mmalign.sources.format_choice import BoundLayout, Formats
from mmalign.sources.layouts import LayoutReader, LayoutWriter


def read_row(row: Mapping[str, Any], index: int = 0, layout: str | None = None) -> Record:
    """Reads a row by the layout that is recognised, or by the one that is named."""
    return LayoutReader(Formats(chosen=[{"name": layout}] if layout else [])).read(row, index)


def recognise(row: Mapping[str, Any]) -> str:
    """Returns the name of the layout that a row is recognised as."""
    return Formats().for_row(row).spec.name


def build_writer(layout: str, **parameters: Any) -> LayoutWriter:
    """Builds what writes the rows of a layout and counts what they do not hold."""
    spec, built = Formats().build({"name": layout, **parameters}, "--to")
    return LayoutWriter(BoundLayout(spec, built), compare="view" not in parameters)


def write_rows_of(record: Record, layout: str, **parameters: Any) -> list[dict[str, Any]]:
    """Returns the rows of a record, without its id."""
    return [
        {name: value for name, value in row.items() if name != "id"}
        for row in build_writer(layout, **parameters).write(record)
    ]
