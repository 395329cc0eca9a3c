"""Plugins that are one file, named in a configuration, and the modules that stand beside it.

A plugin file may import its neighbours, or name them in import strings, without its folder on `sys.path`: only the
names that it mentions are found there, and never in the place of a module that is installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from mmalign.errors import PluginError

_IMPORT_STRING = re.compile(r"([A-Za-z_]\w*)(?:\.\w+)*:[A-Za-z_][\w.]*")


class _PluginFileLoader(SourceFileLoader):
    """Marks the modules that come from plugin files, and never takes them from stale byte code."""

    def get_code(self, fullname: str) -> CodeType:
        """Compiles the source as it is now; byte code is checked against its time in whole seconds only."""
        return self.source_to_code(self.get_data(self.path), self.path)


class _NeighbourFinder(MetaPathFinder):
    """Finds the neighbours that plugin files mention; it comes after all other finders.

    Attributes:
        files: where each is, by name.
    """

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Finds a module or package of a top-level name."""
        file = self.files.get(fullname)
        if file is None:
            return None
        folders = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _PluginFileLoader(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=folders)


_neighbours = _NeighbourFinder()


def forget_neighbours() -> None:
    """Makes the neighbours of the plugin files that are loaded next be read anew: they may have been edited."""
    for name, file in _neighbours.files.items():
        module = sys.modules.get(name)
        if module is not None and getattr(module, "__file__", None) == str(file):
            for one in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
                del sys.modules[one]
    _neighbours.files.clear()


def import_file(name: str, path: Path) -> ModuleType:
    """Imports a file under its stem, so that its specs can name their targets as `stem:attribute`.

    The file is read anew each time: in a notebook it may have been edited since.

    Raises:
        PluginError: its name, or that of a neighbour that it mentions, is the name of another module.
    """
    _check_not_hiding(name, path)
    _add_neighbours(path)
    loader = _PluginFileLoader(name, str(path))
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_not_hiding(name: str, path: Path) -> None:
    if name in sys.modules:
        if isinstance(getattr(sys.modules[name].__spec__, "loader", None), _PluginFileLoader):
            return
        other = getattr(sys.modules[name], "__file__", None) or "built in"
    else:
        found = importlib.util.find_spec(name)
        other = (found.origin or "a folder") if found else str(path)
    if Path(other).resolve() != path:
        raise PluginError(f"its name hides the module {name!r} ({other}); rename the file")


def _add_neighbours(path: Path) -> None:
    if _neighbours not in sys.meta_path:
        sys.meta_path.append(_neighbours)
    for name, file in _find_neighbours(path).items():
        if _neighbours.files.get(name) == file:
            continue
        found = importlib.util.find_spec(name)
        if found is not None and Path(found.origin or "").resolve() != file.resolve():
            raise PluginError(
                f"mentions {name!r}, a file beside it, but another module has that name, too "
                f"({found.origin or 'a folder'}); rename the file"
            )
        _neighbours.files[name] = file


def _find_neighbours(path: Path) -> dict[str, Path]:
    """Finds the modules in a file's folder that it mentions, and those that they mention."""
    found: dict[str, Path] = {}
    waiting = [path]
    while waiting:
        for name in _iter_mentioned(waiting.pop()):
            files = [path.with_name(f"{name}.py"), path.parent / name / "__init__.py"]
            file = next((one for one in files if one.is_file() and one != path), None)
            if file is not None and name not in found:
                found[name] = file
                waiting.append(file)
    return found


def _iter_mentioned(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    # What is wrong with it is said when it is imported.
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if string := _IMPORT_STRING.fullmatch(node.value):
                yield string[1]
