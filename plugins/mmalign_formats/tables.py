"""Parquet and Arrow tables. A value that Python cannot hold makes its row a bad one, not the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from mmalign import DataError, FileFormat, RawRow, ReadOptions
from mmalign_formats.compression import FREE_BYTES

_BATCH_ROWS = 256
_BATCH_BYTES = 8 * 2**20


class Parquet(FileFormat):
    """Reads and writes Parquet."""

    tabular = True

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields the rows."""
        yield from iter_rows(str(path), _iter_parquet(path), options, path.stat().st_size)

    def write(self, rows: Iterable[Mapping[str, Any]], path: Path, schema: Any = None) -> int:
        """Writes rows; without a schema, all at once."""
        from pyarrow import parquet

        def open_writer(schema: Any) -> Any:
            return parquet.ParquetWriter(path, schema)

        return _write(rows, path, schema, open_writer)


class ArrowTable(FileFormat):
    """Reads Arrow tables, files (Feather) as well as streams; writes files."""

    def read(self, path: Path, options: ReadOptions) -> Iterator[RawRow]:
        """Yields the rows."""
        yield from iter_rows(str(path), _iter_arrow(path), options, path.stat().st_size)

    def write(self, rows: Iterable[Mapping[str, Any]], path: Path, schema: Any = None) -> int:
        """Writes rows; without a schema, all at once."""
        import pyarrow

        return _write(rows, path, schema, lambda schema: pyarrow.ipc.new_file(str(path), schema))


def _iter_parquet(path: Path) -> Iterator[Any]:
    from pyarrow import parquet

    with _damaged_table(path, "Parquet"), path.open("rb") as raw, parquet.ParquetFile(raw) as file:
        for group in range(file.num_row_groups):
            described = file.metadata.row_group(group)
            fitting = _BATCH_BYTES * described.num_rows // max(1, described.total_byte_size)
            yield from file.iter_batches(batch_size=max(1, min(_BATCH_ROWS, fitting)), row_groups=[group])


def _iter_arrow(path: Path) -> Iterator[Any]:
    import pyarrow

    with _damaged_table(path, "Arrow"), pyarrow.memory_map(str(path)) as source:
        if source.read(6) == b"ARROW1":
            with pyarrow.ipc.open_file(source) as file:
                for index in range(file.num_record_batches):
                    yield file.get_batch(index)
        else:
            source.seek(0)
            with pyarrow.ipc.open_stream(source) as stream:
                yield from stream


@contextmanager
def _damaged_table(path: Path, kind: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        problem = f"damaged, cut-off or not {'an' if kind[0] == 'A' else 'a'} {kind} file ({reason})"
        raise DataError(f"{path}: {problem}; copy or write it again") from None


def iter_rows(name: str, batches: Iterable[Any], options: ReadOptions, size: int = 0) -> Iterator[RawRow]:
    """Yields the rows of Arrow record batches.

    Args:
        name: of the file, for places.
        size: of the file in bytes; what the batches may become is bounded by it. 0 for no bound.

    Raises:
        DataError: the table becomes more than `options.expansion` times its size.
    """
    number = given = 0
    for whole in batches:
        for start in range(0, whole.num_rows, _BATCH_ROWS):
            batch = whole.slice(start, _BATCH_ROWS)
            given += batch.nbytes
            if size and given > max(FREE_BYTES, size * options.expansion):
                key = f"{options.where}.max_expansion"
                raise DataError(
                    f"{name}: becomes more than {options.expansion:g} times its size; if meant, raise {key}"
                )
            for value, fault in _read_batch(batch, options):
                number += 1
                yield RawRow(name, number, value, fault=fault, unit="row")


def _read_batch(batch: Any, options: ReadOptions) -> Iterator[tuple[Any, str]]:
    if batch.nbytes <= options.row_bytes:
        try:
            yield from [(_drop_nulls(row), "") for row in batch.to_pylist()]
            return
        except _unreadable():
            pass
    for index in range(batch.num_rows):
        yield _read_one(batch.slice(index, 1), options)


def _read_one(row: Any, options: ReadOptions) -> tuple[Any, str]:
    if row.nbytes > options.row_bytes:
        most = f"{options.where}.max_row_bytes, {options.row_bytes:,}"
        return None, f"a row of {row.nbytes:,} bytes, more than {most}; if it is meant, raise the key"
    value = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        try:
            value[name] = _drop_nulls(column[0].as_py())
        except _unreadable() as error:
            return None, f"{name}: a value of type {column.type} that Python cannot hold: {error}"
    return value, ""


def _drop_nulls(value: Any) -> Any:
    """Drops null keys inside a column: Arrow gives every object the keys of all others."""
    if isinstance(value, dict):
        return {key: _drop_nulls(one) for key, one in value.items() if one is not None}
    return [_drop_nulls(one) for one in value] if isinstance(value, list) else value


def _unreadable() -> tuple[type[Exception], ...]:
    """What Arrow raises at values that have no form in Python: dates far away, texts that are not UTF-8."""
    import pyarrow

    return (pyarrow.ArrowException, OverflowError, ValueError, OSError, ImportError)


def _write(rows: Iterable[Mapping[str, Any]], path: Path, schema: Any, open_writer: Callable[[Any], Any]) -> int:
    import pyarrow

    if schema is None:
        table = _infer_table(list(rows), path)
        with open_writer(table.schema) as writer:
            writer.write_table(table)
        return int(table.num_rows)
    count, iterator = 0, iter(rows)
    with open_writer(schema) as writer:
        while batch := list(islice(iterator, _BATCH_ROWS)):
            writer.write_table(pyarrow.Table.from_pylist([dict(row) for row in batch], schema=schema))
            count += len(batch)
    return count


def _infer_table(rows: list[Mapping[str, Any]], path: Path) -> Any:
    import pyarrow

    # Arrow takes the columns of the first row for those of all.
    columns = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    except (pyarrow.ArrowException, OverflowError, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: the rows have no common columns ({reason}); write .jsonl instead") from None
