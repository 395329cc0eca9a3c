"""The folder of what is expensive to make and the same for every run, by kind; safe to clear at any time.

    ~/.cache/mmalign/<kind>/CACHEDIR.TAG   says that the folder is a cache; backups leave it out
                            ...            whatever the kind holds

`MMALIGN_CACHE` moves it. Only folders with our tag are ever listed or removed: the root may hold other things.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_TAG = "CACHEDIR.TAG"
# The first line is that of bford.info/cachedir, by which backup tools know a cache.
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of mmalign; clear it with `mmalign cache clear`.\n"


def cache_root() -> Path:
    """Returns `MMALIGN_CACHE`, or `~/.cache/mmalign`."""
    return Path(os.environ.get("MMALIGN_CACHE") or "~/.cache/mmalign").expanduser()


def cache_folder(kind: str) -> Path:
    """Returns the folder for one kind of cached things; it is made if it is missing.

    Args:
        kind: a plain folder name that says what is in it, e.g. `gguf`.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = cache_root() / kind
    folder.mkdir(parents=True, exist_ok=True)
    tag = folder / _TAG
    if not tag.exists():
        tag.write_text(_TAG_TEXT, encoding="utf-8")
    return folder


def iter_cache_folders() -> Iterator[Path]:
    """Yields the folder of every kind that is there, by name."""
    root = cache_root()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        tag = folder / _TAG
        if not folder.is_symlink() and tag.is_file() and tag.read_text(encoding="utf-8") == _TAG_TEXT:
            yield folder


def iter_cache_entries(folder: Path) -> Iterator[Path]:
    """Yields what a kind's folder holds, the tag and unfinished (hidden) entries left out."""
    return (entry for entry in sorted(folder.iterdir()) if entry.name != _TAG and not entry.name.startswith("."))


def measure_cache(folder: Path) -> int:
    """Adds up the bytes of all files of one kind."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != _TAG)


def clear_cache(folder: Path) -> None:
    """Removes one kind with all it holds; a run that uses it makes it again."""
    shutil.rmtree(folder)
