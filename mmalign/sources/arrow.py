"""The Arrow form of records: a fixed table schema, derived from the models.

Arrow guesses the type of a column from what it sees, so a shard in which a list is empty in every row would get
another type than its neighbours. Always pass this schema when reading or writing record tables with other tools.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin

import pyarrow

from mmalign.data.record_rows import Row
from mmalign.data.records import Record

if TYPE_CHECKING:
    import datasets

_SCALARS = {str: pyarrow.string(), bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}


@cache
def record_schema() -> pyarrow.Schema:
    """Returns the Arrow schema of records: 14 columns."""
    return pyarrow.schema(_fields(Record))


def record_features() -> datasets.Features:
    """Returns the schema as `features=` of Hugging Face datasets."""
    import datasets

    return datasets.Features.from_arrow_schema(record_schema())


def records_to_table(records: list[Record]) -> pyarrow.Table:
    """Returns a table with the columns of `record_schema`; missing values are null, missing lists empty."""
    rows = [record.model_dump(mode="json", by_alias=True) for record in records]
    return pyarrow.Table.from_pylist(rows, schema=record_schema())


def _fields(model: type[Row]) -> list[pyarrow.Field]:
    return [
        pyarrow.field(info.alias or name, _arrow_type(info.annotation)) for name, info in model.model_fields.items()
    ]


def _arrow_type(annotation: Any) -> pyarrow.DataType:
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, Row):
        return pyarrow.struct(_fields(annotation))
    arguments = [argument for argument in get_args(annotation) if argument is not type(None)]
    if get_origin(annotation) is tuple:
        return pyarrow.list_(_arrow_type(arguments[0]))
    # What is left: `X | None`, Annotated[X, ...], and literals, which are strings.
    return _arrow_type(type(arguments[0]) if isinstance(arguments[0], str) else arguments[0])
