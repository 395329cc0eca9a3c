"""Forms of data: how files become rows, and how rows in the columns of other projects become records.

Formats of files are in `lines`, `arrays`, `delimited`, `tables`, `hosted`, `tars` and `image_folder`. A layout is one
module of its own; `turns`, `media` and `drafts` are what they share for reading, `rows` for writing.
"""

from __future__ import annotations

from mmalign import FileFormatSpec, LayoutSpec, hookimpl
from mmalign_formats.specs import FILE_FORMATS, LAYOUTS


@hookimpl
def register_formats() -> list[FileFormatSpec | LayoutSpec]:
    """Returns the formats of files and the layouts of rows."""
    return [*FILE_FORMATS, *LAYOUTS]
