"""Plugin code that is not trusted yet: where it is, how it is imported, and the checks that pluggy does not make.

`mmalign.plugins.loading` puts these together.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pluggy

from mmalign import hookspecs
from mmalign.errors import ConfigError, PluginError, suggest
from mmalign.import_strings import plugin_code
from mmalign.plugins.files import import_file

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith(("register_", "on_")))


@dataclass(frozen=True)
class Candidate:
    """A plugin that is not imported yet.

    Attributes:
        file: where its code is, if it is not installed.
        entry_point: how it was announced, if it is installed.
    """

    name: str
    distribution: str = ""
    version: str = ""
    file: str = ""
    entry_point: importlib.metadata.EntryPoint | None = None

    @property
    def origin(self) -> str:
        """The distribution and its version, or the file, for messages."""
        return f"{self.distribution} {self.version}".strip() or self.file

    @classmethod
    def from_file(cls, path: Path) -> Candidate:
        """Names a plugin file by its stem; raises ConfigError if there is no such file."""
        if not path.is_file():
            names = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
            raise ConfigError(f"plugins: no such file {str(path)!r}{suggest(path.name, names)}")
        if path.suffix != ".py" or not path.stem.isidentifier():
            raise ConfigError(f"plugins: {str(path)!r}: expected a .py file whose name is a Python name")
        return cls(name=path.stem, file=str(path.resolve()))

    def load(self) -> Any:
        """Imports the plugin; whatever its code raises passes through."""
        return self.entry_point.load() if self.entry_point else import_file(self.name, Path(self.file))

    def missing_module(self, error: BaseException | None) -> str:
        """Names the package whose absence stopped the import; empty if it was something else."""
        if self.entry_point is None or not isinstance(error, ModuleNotFoundError) or not error.name:
            return ""
        top = error.name.partition(".")[0]
        own = self.entry_point.module.partition(".")[0]
        # An installed package without the wanted submodule is of another version: no install command mends that.
        return "" if top == own or top in sys.modules else top

    def install_command(self, missing: str) -> str:
        """Says what installs a module: a likely extra of the plugin's distribution, else the module's own name."""
        dist = self.entry_point.dist if self.entry_point else None
        offered = (dist.metadata.get_all("Provides-Extra") or []) if dist else []
        wanted = (*self.entry_point.extras, self.name) if self.entry_point else ()
        extra = next((extra for extra in wanted if extra in offered), "")
        return f'pip install "{self.distribution}[{extra}]"' if extra else f"pip install {missing}"


def find_installed() -> list[Candidate]:
    """Finds the entry points of the group `mmalign`, in no order that may be relied on."""
    candidates: dict[tuple[str, str, str], Candidate] = {}
    for entry_point in importlib.metadata.entry_points(group=hookspecs.GROUP):
        name, version = (entry_point.dist.name, entry_point.dist.version) if entry_point.dist else ("", "")
        # An editable install may show the same distribution twice: as metadata and as an egg-info folder.
        key = (entry_point.name, name, entry_point.value)
        candidates.setdefault(key, Candidate(entry_point.name, name, version, entry_point=entry_point))
    return list(candidates.values())


def new_manager() -> pluggy.PluginManager:
    """Builds a manager that knows every hook and no plugin."""
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    return manager


def check_hooks(plugin: Any, name: str) -> tuple[str, ...]:
    """Registers the plugin with a manager of its own; returns the hooks it implements.

    Raises:
        PluginError: pluggy refuses the plugin, or would not call it as its author expects.
    """
    if inspect.isclass(plugin):
        raise PluginError(f"{plugin.__name__!r} is a class; point the entry point at a module or an instance")
    manager = new_manager()
    with plugin_code("registration failed"):
        manager.register(plugin, name)
        unmarked = [hook for hook in HOOKS if hasattr(plugin, hook) and not manager.parse_hookimpl_opts(plugin, hook)]
    if unmarked:
        raise PluginError(f"{unmarked[0]!r} is named like a hook, but not marked; forgot @mmalign.hookimpl?")
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        raise PluginError("implements no hook; mark its functions with @mmalign.hookimpl")
    for caller in callers:
        _check_implementations(caller)
    return tuple(sorted(caller.name for caller in callers))


def _check_implementations(caller: pluggy.HookCaller) -> None:
    for implementation in caller.get_hookimpls():
        if caller.spec is None:
            if not implementation.optionalhook:
                raise PluginError(f"unknown hook {caller.name!r}{suggest(caller.name, HOOKS)}")
        elif implementation.kwargnames:
            raise PluginError(
                f"argument {implementation.kwargnames[0]!r} of {caller.name!r} has a default, so it would never be "
                f"filled; the arguments are: {', '.join(caller.spec.argnames) or 'none'}"
            )
        if caller.name.startswith("register_") and (implementation.wrapper or implementation.hookwrapper):
            raise PluginError(f"{caller.name!r} is a wrapper; what other plugins register cannot be changed")
