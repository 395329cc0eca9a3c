"""Loads plugins: finds them, imports them one by one, checks them, and remembers what became of each.

pluggy's own `load_setuptools_entrypoints` is not used: one plugin that fails to import would abort it, a second
distribution with the same name would be skipped without a word, and the order would differ between machines. Here a
plugin is checked against a manager of its own first, so a broken one never touches the manager that runs use.
Nothing here imports torch.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mmalign.errors import ConfigError, PluginError, suggest
from mmalign.hookspecs import API_VERSION
from mmalign.import_strings import plugin_code
from mmalign.plugins.discovery import Candidate, check_hooks, find_installed, new_manager
from mmalign.plugins.files import forget_neighbours

logger = logging.getLogger(__name__)

Status = Literal["ok", "broken", "incompatible", "unavailable", "disabled"]


@dataclass(frozen=True)
class PluginInfo:
    """What is known about one plugin.

    Attributes:
        name: name of its entry point, or the stem of its file.
        distribution: the distribution that installed it; empty for a file that is not installed.
        version: version of the distribution.
        file: where its code is; empty if it was not imported.
        status: `ok`; `broken` (raised, or not a plugin); `incompatible` (written for another API); `unavailable` (a
            module that it needs is not installed); `disabled` (switched off).
        error: why it is not `ok`, and what mends it.
        hooks: names of the hooks it implements.
        provides: names of its parts by kind; filled in by the registry.
    """

    name: str
    distribution: str = ""
    version: str = ""
    file: str = ""
    status: Status = "ok"
    error: str = ""
    hooks: tuple[str, ...] = ()
    provides: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """The distribution and its version, or the file, for messages."""
        return f"{self.distribution} {self.version}".strip() or self.file

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON-serialisable mapping."""
        return {**asdict(self), "hooks": list(self.hooks)}


class PluginSet:
    """The plugins of this process.

    Attributes:
        manager: pluggy's manager of the plugins that are `ok`; observers are called in the order of plugin names.
        strict: raise PluginError for a plugin that is not `ok` (unless it is switched off), instead of a warning.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.manager = new_manager()
        self.strict = strict
        self._infos: dict[str, PluginInfo] = {}

    @property
    def infos(self) -> tuple[PluginInfo, ...]:
        """Everything that was found, sorted by name."""
        return tuple(self._infos[name] for name in sorted(self._infos))

    def __getitem__(self, name: str) -> PluginInfo:
        return self._infos[name]

    def add(self, info: PluginInfo) -> None:
        """Records what became of a plugin, and reports it if it cannot be used."""
        self._infos[info.name] = info
        if info.status not in ("ok", "disabled"):
            message = f"plugin {info.name!r} ({info.origin}) is {info.status}: {info.error}"
            if self.strict:
                raise PluginError(message)
            _warn_once(message)

    def reject(self, name: str, status: Status, error: str) -> None:
        """Takes a plugin out that turned out to be unusable after it was loaded."""
        self.manager.unregister(name=name)
        self.add(replace(self._infos[name], status=status, error=error, provides={}))

    def mark_unavailable(self, name: str, error: str) -> None:
        """Records that no part of a plugin can be used before something is installed; what it offers stays listed."""
        self.add(replace(self._infos[name], status="unavailable", error=error))

    def set_provides(self, name: str, provides: Mapping[str, list[str]]) -> None:
        """Records the parts that a plugin registered."""
        self._infos[name] = replace(self._infos[name], provides=provides)


def load_plugins(
    *, disabled: Collection[str] = (), files: Sequence[Path] = (), strict: bool | None = None
) -> PluginSet:
    """Finds and loads the installed plugins, and `files`.

    Args:
        disabled: names to leave out, beside those that the environment variable MMALIGN_PLUGINS leaves out:
            `-rewards,-text` names plugins to leave out, `text,objectives` the only installed ones to load.
        files: plugin files that are not installed; each is a plugin named by its stem.
        strict: stop at any plugin that cannot be used; default: whether MMALIGN_STRICT_PLUGINS is 1.

    Raises:
        ConfigError: a name to leave out, or a file, does not exist.
        PluginError: two plugins have the same name, a file cannot be used, or, if `strict`, any plugin.
    """
    if strict is None:
        strict = os.environ.get("MMALIGN_STRICT_PLUGINS", "") not in ("", "0")
    plugin_set = PluginSet(strict=strict)
    if files:
        forget_neighbours()
    candidates = [*find_installed(), *map(Candidate.from_file, files)]
    switched_off = _find_switched_off(candidates, disabled)
    _check_clashes([one for one in candidates if one.name not in switched_off])
    loaded: dict[str, Any] = {}
    for candidate in sorted(candidates, key=lambda one: one.name):
        info, plugin = _switch_off(candidate) if candidate.name in switched_off else _load(candidate, loaded)
        plugin_set.add(info)
        if plugin is not None:
            loaded[info.name] = plugin
    # pluggy calls what was registered last first.
    for name in sorted(loaded, reverse=True):
        plugin_set.manager.register(loaded[name], name)
    return plugin_set


def provenance(plugin_set: PluginSet) -> list[dict[str, str]]:
    """Lists the usable plugins with their versions, for the record of a run; files with the hash of their content."""
    rows = []
    for info in plugin_set.infos:
        if info.status == "ok":
            row = {"name": info.name, "distribution": info.distribution, "version": info.version}
            if not info.distribution:
                row |= {"file": info.file, "sha256": hashlib.sha256(Path(info.file).read_bytes()).hexdigest()}
            rows.append(row)
    return rows


def _find_switched_off(candidates: Sequence[Candidate], disabled: Collection[str]) -> set[str]:
    names = {one.name for one in candidates}
    entries = [entry.strip() for entry in os.environ.get("MMALIGN_PLUGINS", "").split(",") if entry.strip()]
    refused = {entry[1:] for entry in entries if entry.startswith("-")}
    allowed = {entry for entry in entries if not entry.startswith("-")}
    for source, given in (("MMALIGN_PLUGINS", refused | allowed), ("--no-plugin", set(disabled))):
        for name in sorted(given - names):
            raise ConfigError(f"{source}: unknown plugin {name!r}{suggest(name, names)}")
    installed = {one.name for one in candidates if one.entry_point}
    return refused | set(disabled) | (installed - allowed if allowed else set())


def _check_clashes(candidates: Sequence[Candidate]) -> None:
    origins: dict[str, str] = {}
    for candidate in candidates:
        name = candidate.name
        if name in origins:
            raise PluginError(
                f"two plugins are named {name!r}: one of {origins[name]} and one of {candidate.origin}; "
                f"rename or uninstall one, or switch both off with --no-plugin {name}"
            )
        origins[name] = candidate.origin


def _info(candidate: Candidate, **changes: Any) -> PluginInfo:
    known = {"file": candidate.file, **changes}
    return PluginInfo(candidate.name, candidate.distribution, candidate.version, **known)


def _switch_off(candidate: Candidate) -> tuple[PluginInfo, None]:
    return _info(candidate, status="disabled", error="switched off"), None


def _load(candidate: Candidate, loaded: Mapping[str, Any]) -> tuple[PluginInfo, Any]:
    """Imports and checks one plugin; returns what became of it, and the plugin if it can be used."""
    file = candidate.file
    try:
        with plugin_code("import failed"):
            plugin = candidate.load()
            api = getattr(plugin, "MMALIGN_API", API_VERSION)
        file = _file_of(plugin) or file
        if api != API_VERSION:
            error = (
                f"written for plugin API {api!r}, this mmalign has {API_VERSION}; install a version that matches, or "
                "change it: docs/plugins.md, 'From API 1 to 2'"
            )
            return _info(candidate, file=file, status="incompatible", error=error), None
        twin = next((name for name, other in loaded.items() if other is plugin), "")
        if twin:
            raise PluginError(f"the same object as plugin {twin!r}; remove one of the two entry points")
        return _info(candidate, file=file, hooks=check_hooks(plugin, candidate.name)), plugin
    except PluginError as error:
        if candidate.entry_point is None:
            raise PluginError(f"plugins: {candidate.file}: {error}") from error
        missing = candidate.missing_module(error.__cause__)
        if missing:
            hint = f"needs {missing!r}, which is not installed; {candidate.install_command(missing)}"
            return _info(candidate, file=file, status="unavailable", error=hint), None
        return _info(candidate, file=file, status="broken", error=str(error)), None


def _file_of(plugin: Any) -> str:
    module = plugin if inspect.ismodule(plugin) else sys.modules.get(type(plugin).__module__)
    return str(getattr(module, "__file__", None) or "")


@functools.cache
def _warn_once(message: str) -> None:
    """Logs a warning, but not again each time that plugins are loaded in this process."""
    logger.warning(message)
