"""Digests of the files that a configuration names: code of plugins and rewards, templates, lists, folders of models.

A path says where something is, not what it is: a file may be another one when a run goes on.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_ELSEWHERE = ("data", "output", "checkpoint", "evaluation", "trackers", "teachers")
"""Sections whose files are compared by other means, or decide nothing of what is trained."""

_READ = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt", ".model", ".jinja", ".py", ".npz", ".onnx")
"""Files of a folder that a model may be read from; notes and logs beside it may change."""

_NAMED = (*_READ, ".yaml", ".yml", ".csv", ".tsv", ".jsonl", ".npy", ".j2", ".md")
"""Files that a part may read; a database or a log that it names is rather one that it writes."""

_MODEL = ("config.json", "model_index.json", "adapter_config.json", "config.yaml")
"""One of these makes a folder one of a model, or of a run; another folder may share its name with a plain word."""

_WHOLE = 1 << 26  # bytes up to which a file is hashed whole
_SAMPLES = 256
_SAMPLE = 1 << 16


def digest_named_files(config: Mapping[str, Any]) -> dict[str, str]:
    """Digests every file that a configuration names, and those of a folder, by key path and name.

    Of plugin files and of other Python files the neighbours that they import count, too. A file above 64 MB counts by
    its size and by 256 pieces of 64 KB, evenly spread: what was trained or written anew differs in nearly all of them.

    Args:
        config: the sections of a run configuration, as JSON values.
    """
    found: dict[str, str] = {}
    sections = {name: value for name, value in config.items() if name not in _ELSEWHERE}
    sections["data.train.transforms"] = config["data"]["train"]["transforms"]
    for key, text in _iter_texts(sections):
        for path in _find_files(text):
            # Where in a list a plugin stands, and in which folder, does not matter.
            place = "plugins" if key.startswith("plugins.") else key
            found[f"{place}:{path.name}"] = digest_file(path)
            found |= {f"{place}:{one.name}": digest_file(one) for one in _neighbours(path)}
        found |= {f"{key}:{name}": digest_file(path) for name, path in _iter_folder(text)}
    return found


def digest_file(path: Path) -> str:
    """Digests a file: all of a small one; the size and evenly spread pieces of a large one."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for index in range(_SAMPLES):
                file.seek(index * (size - _SAMPLE) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _iter_texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yields texts with their key paths; names of parts are no paths, whatever stands in the working folder."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            if name != "name":
                yield from _iter_texts(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, one in enumerate(value):
            yield from _iter_texts(one, f"{key}.{index}")
    elif isinstance(value, str):
        yield key, value


def _find_files(text: str) -> list[Path]:
    """Returns the file that a text names: a path with a suffix, or `path/file.py:function`."""
    name = text.rpartition(":")[0] if ".py:" in text else text
    path = _as_path(name)
    return [path] if path is not None and path.suffix in _NAMED and _is_file(path) else []


def _iter_folder(text: str) -> Iterator[tuple[str, Path]]:
    folder = _as_path(text)
    if folder is None or not any(_is_file(folder / name) for name in _MODEL):
        return
    # Two levels: a pipeline keeps each model in a folder of its own.
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            if path.suffix in _READ and path.is_file():
                yield str(path.relative_to(folder)), path


def _as_path(text: str) -> Path | None:
    usable = 0 < len(text) < 1000 and "\n" not in text and "\0" not in text and "://" not in text
    return Path(text).expanduser() if usable else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _neighbours(path: Path, seen: frozenset[Path] = frozenset()) -> list[Path]:
    """Lists the Python files of the same folder that a Python file imports, and those that they import."""
    if path.suffix != ".py":
        return []
    seen = seen | {path}
    found = []
    for name in _imported(path):
        other = path.parent / f"{name}.py"
        if other.is_file() and other not in seen:
            found += [other, *_neighbours(other, seen)]
    return found


def _imported(path: Path) -> set[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}
