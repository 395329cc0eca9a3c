"""`mmalign cache`: what is kept between runs, and how to get rid of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmalign.errors import ConfigError, suggest
from mmalign.references.folders import cache_root, clear_cache, iter_cache_entries, iter_cache_folders, measure_cache
from mmalign.references.row_store import RowStore
from mmalign.shown_text import dump_json
from mmalign.terminal import write_line

app = typer.Typer(
    help="Show and clear what is kept between runs.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Print kind, entries and size of everything that is kept."""
    rows = [(folder.name, count_entries(folder), measure_cache(folder)) for folder in iter_cache_folders()]
    if as_json:
        kinds = {name: {"entries": entries, "bytes": size} for name, entries, size in rows}
        write_line(dump_json({"folder": str(cache_root()), "kinds": kinds}))
        return
    write_line(f"{cache_root()}" if rows else f"{cache_root()}: nothing is kept")
    for name, entries, size in rows:
        write_line(f"{name:20} {entries:>10,} entries {size / 2**20:>12,.1f} MiB")


@app.command()
def clear(
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Only this kind; may be given several times.")
    ] = None,
) -> None:
    """Remove what is kept, all of it or some kinds; runs compute it again."""
    folders = {folder.name: folder for folder in iter_cache_folders()}
    for name in kind or ():
        if name not in folders:
            raise ConfigError(f"--kind: nothing of kind {name!r} is kept{suggest(name, folders)}")
    for name in dict.fromkeys(kind or folders):
        size = measure_cache(folders[name])
        clear_cache(folders[name])
        write_line(f"removed {name}, {size / 2**20:,.1f} MiB")
    if not folders:
        write_line(f"{cache_root()}: nothing is kept")


def count_entries(folder: Path) -> int:
    """Counts what a kind's folder holds: the rows of its tables, and its other files and folders."""
    entries = list(iter_cache_entries(folder))
    tables = [entry for entry in entries if entry.suffix == ".sqlite"]
    others = [entry for entry in entries if not entry.name.startswith(tuple(table.name for table in tables))]
    return len(others) + sum(RowStore(table).count() for table in tables)
