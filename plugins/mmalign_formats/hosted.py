"""Hugging Face datasets: folders that `save_to_disk` made, and data sets on the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign import DataError, FileFormat, RawRow, ReadOptions, suggest
from mmalign_formats.tables import iter_rows

_BATCH = 256


class SavedDataset(FileFormat):
    """Reads and writes the folders of `Dataset.save_to_disk`."""

    tabular = True

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Returns whether a folder holds a data set, or several as splits."""
        return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))

    def open(self, path: str, options: ReadOptions) -> Dataset:
        """Loads the split; nothing is read yet."""
        import datasets

        where = options.where
        try:
            loaded = datasets.load_from_disk(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{where}.path: {path!r} cannot be loaded: {_first_line(error)}") from None
        if isinstance(loaded, datasets.DatasetDict):
            split = options.split or "train"
            if split not in loaded:
                raise DataError(f"{where}.split: {path!r} has no split {split!r}{suggest(split, loaded)}")
            loaded = loaded[split]
        return Dataset(path, loaded.to_iterable_dataset() if options.streaming else loaded, path, options)

    def write(self, rows: Iterable[Mapping[str, Any]], path: Path, schema: Any = None) -> int:
        """Writes a data set without splits."""
        import datasets
        import pyarrow

        listed = [dict(row) for row in rows]
        features = datasets.Features.from_arrow_schema(schema) if schema is not None else None
        names = list(dict.fromkeys(name for row in listed for name in row))
        try:
            columns = {name: [row.get(name) for row in listed] for name in (features or names)}
            dataset = datasets.Dataset.from_dict(columns, features=features)
        except (pyarrow.ArrowException, ValueError, TypeError) as error:
            raise DataError(f"{path}: the rows have no common columns ({_first_line(error)})") from None
        with _without_progress():
            dataset.save_to_disk(str(path))
        return len(listed)


class HubDataset(FileFormat):
    """Reads data sets of the Hugging Face hub by their name, `owner/name`."""

    def open(self, path: str, options: ReadOptions) -> Dataset:
        """Loads the split, or finds it if it is streamed."""
        import datasets

        split = options.split or "train"
        try:
            loaded = datasets.load_dataset(path, options.name or None, split=split, streaming=options.streaming)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{options.where}.path: no local file {path!r}, and it cannot be loaded from the Hugging Face hub: "
                f"{_first_line(error)}"
            ) from None
        return Dataset(path, loaded, f"{path}:{options.name or None}:{split}:{loaded.info.version}", options)


@dataclass(frozen=True)
class Dataset:
    """The rows of a Hugging Face dataset; a streamed one is read as it arrives."""

    name: str
    dataset: Any
    identity: str
    options: ReadOptions

    def __iter__(self) -> Iterator[RawRow]:
        # The Arrow format leaves images as bytes and paths; the default one would decode them all.
        tables = self.dataset.with_format("arrow").iter(batch_size=_BATCH)
        yield from iter_rows(self.name, (batch for table in tables for batch in table.to_batches()), self.options)

    def fingerprint(self, *, by_content: bool) -> str:
        """Names the content by the dataset's own fingerprint, or by its name and version if it is streamed."""
        return str(getattr(self.dataset, "_fingerprint", None) or self.identity)


@contextmanager
def _without_progress() -> Iterator[None]:
    import datasets

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
