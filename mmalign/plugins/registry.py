"""What the loaded plugins offer, by kind and name, and how an import string becomes an object.

`registry.find("objective", "dpo", "objective.name").spec` is all that most callers need.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pluggy import HookImpl

from mmalign.contract.specs import (
    AdvantageSpec,
    CollectorSpec,
    DecodingSpec,
    EngineSpec,
    EvaluatorSpec,
    FormatSpec,
    ModalitySpec,
    ObjectiveSpec,
    QuantitySpec,
    RewardSpec,
    Spec,
    TransformSpec,
)
from mmalign.errors import ConfigError, PluginError, suggest
from mmalign.import_strings import plugin_code
from mmalign.plugins.loading import PluginInfo, PluginSet, load_plugins
from mmalign.plugins.spec_checks import check_spec

SpecT = TypeVar("SpecT")

HOOK_OF: dict[str, tuple[str, type[Spec]]] = {
    "modality": ("register_modalities", ModalitySpec),
    "quantity": ("register_quantities", QuantitySpec),
    "objective": ("register_objectives", ObjectiveSpec),
    "advantage": ("register_advantages", AdvantageSpec),
    "reward": ("register_rewards", RewardSpec),
    "transform": ("register_transforms", TransformSpec),
    "collector": ("register_collectors", CollectorSpec),
    "decoding": ("register_decodings", DecodingSpec),
    "engine": ("register_engines", EngineSpec),
    "evaluator": ("register_evaluators", EvaluatorSpec),
    "format": ("register_formats", FormatSpec),
}
"""The hook that registers each kind of part, and what the hook returns a list of."""

KINDS = tuple(HOOK_OF)


@dataclass(frozen=True)
class Entry(Generic[SpecT]):
    """A registered part and the plugin that offers it."""

    spec: SpecT
    plugin: PluginInfo

    @property
    def unavailable(self) -> str:
        """Why the part cannot be used here, and the command that mends it; empty if it can."""
        missing = [module for module in getattr(self.spec, "requires", ()) if not _is_installed(module)]
        if not missing:
            return ""
        extra = getattr(self.spec, "extra", "")
        wanted = f'"{self.plugin.distribution}[{extra}]"' if extra and self.plugin.distribution else " ".join(missing)
        return f"needs {', '.join(missing)}, which is not installed; pip install {wanted}"


class Registry:
    """Parts by kind and name.

    The registration hooks are called here, one plugin at a time, so that the origin of every part is known. A plugin
    whose hook raises or returns something else than specs is marked broken, and none of its parts is offered.

    Raises:
        PluginError: two plugins offer the same name of one kind.
    """

    def __init__(self, plugin_set: PluginSet) -> None:
        self.plugin_set = plugin_set
        self._entries: dict[str, dict[str, Entry[Any]]] = {kind: {} for kind in KINDS}
        self._names: dict[str, dict[str, Entry[Any]]] = {kind: {} for kind in KINDS}
        for info in plugin_set.infos:
            if info.status == "ok":
                self._add_plugin(info.name)

    def find(self, kind: str, name: str, where: str) -> Entry[Any]:
        """Looks up a part by name or alias.

        Args:
            where: the key path that names it, for the error.

        Raises:
            ConfigError: no plugin offers the name.
            PluginError: the part needs a module that is not installed.
        """
        entry = self._names[kind].get(name)
        if entry is None:
            raise ConfigError(f"{where}: unknown {name!r}{self._explain_unknown(kind, name)}")
        if entry.unavailable:
            raise PluginError(f"{where}: {kind} {name!r} of plugin {entry.plugin.name!r} {entry.unavailable}")
        return entry

    def names(self, kind: str) -> list[str]:
        """Lists the names of a kind, aliases left out, in alphabetical order."""
        return sorted(self._entries[kind])

    def entries(self, kind: str) -> list[Entry[Any]]:
        """Lists the parts of a kind by name, those that are unavailable included.

        The kind `conformance` is also known: its entries hold `ConformanceSpec`s in the order of plugin names.
        """
        if kind == "conformance":
            return list(self._conformance)
        return [self._entries[kind][name] for name in self.names(kind)]

    def quantities(self) -> list[Entry[QuantitySpec]]:
        """Lists the quantities that plugins compute."""
        return self.entries("quantity")

    @functools.cached_property
    def _conformance(self) -> tuple[Entry[Any], ...]:
        # Asked for on demand: only the conformance runner needs them.
        from mmalign.contract.specs import ConformanceSpec

        entries: list[Entry[Any]] = []
        for implementation in self._implementations("register_conformance"):
            info = self.plugin_set[implementation.plugin_name]
            specs = _call(implementation, "register_conformance", ConformanceSpec)
            entries += [Entry(spec, info) for spec in specs]
        return tuple(entries)

    def _implementations(self, hook: str) -> list[HookImpl]:
        implementations: list[HookImpl] = getattr(self.plugin_set.manager.hook, hook).get_hookimpls()
        return sorted(implementations, key=lambda one: one.plugin_name)

    def _add_plugin(self, name: str) -> None:
        try:
            specs = {kind: list(self._collect(kind, name)) for kind in KINDS}
        except PluginError as error:
            info = self.plugin_set[name]
            if not info.distribution:
                raise PluginError(f"plugins: {info.file}: {error}") from error
            self.plugin_set.reject(name, "broken", str(error))
            return
        provides = {kind: sorted(spec.name for spec in found) for kind, found in specs.items() if found}
        self.plugin_set.set_provides(name, provides)
        entries = [Entry(spec, self.plugin_set[name]) for found in specs.values() for spec in found]
        reasons = [entry.unavailable for entry in entries]
        if reasons and all(reasons):
            self.plugin_set.mark_unavailable(name, reasons[0])
            entries = [Entry(entry.spec, self.plugin_set[name]) for entry in entries]
        for entry in entries:
            self._add_entry(entry)

    def _collect(self, kind: str, plugin_name: str) -> Iterator[Spec]:
        hook, spec_class = HOOK_OF[kind]
        seen: set[str] = set()
        for implementation in self._implementations(hook):
            if implementation.plugin_name == plugin_name:
                for spec in _call(implementation, hook, spec_class):
                    check_spec(spec, hook)
                    repeated = seen & {spec.name, *spec.aliases}
                    if repeated:
                        raise PluginError(f"{hook} offers {repeated.pop()!r} twice")
                    seen |= {spec.name, *spec.aliases}
                    yield spec

    def _add_entry(self, entry: Entry[Any]) -> None:
        kind = entry.spec.kind
        for name in (entry.spec.name, *entry.spec.aliases):
            other = self._names[kind].get(name)
            if other is not None:
                raise PluginError(
                    f"two plugins offer the {kind} {name!r}: {_origin(other.plugin)} and {_origin(entry.plugin)}; "
                    f"switch one off, e.g. --no-plugin {entry.plugin.name}"
                )
            self._names[kind][name] = entry
        self._entries[kind][entry.spec.name] = entry

    def _explain_unknown(self, kind: str, name: str) -> str:
        tail = suggest(name, self._names[kind])
        elsewhere = [other for other in KINDS if name in self._names[other]]
        if elsewhere:
            tail += f"; {name!r} is the name of a part of another kind: {', '.join(elsewhere)}"
        origins = sorted({f"{entry.plugin.name} {entry.plugin.version}".strip() for entry in self.entries(kind)})
        if origins:
            tail += f" (plugins: {', '.join(origins)})"
        missing = [info for info in self.plugin_set.infos if info.status != "ok" and not info.provides]
        for info in missing:
            tail += f"\n  plugin {_origin(info)} is {info.status}, its parts are not known: {info.error}"
        return tail


def load_registry(
    *, disabled: Collection[str] = (), files: Sequence[Path] = (), strict: bool | None = None
) -> Registry:
    """Loads the plugins and registers what they offer; see `load_plugins` for arguments and errors."""
    return Registry(load_plugins(disabled=disabled, files=files, strict=strict))


def _call(implementation: HookImpl, hook: str, spec_class: type[SpecT]) -> list[SpecT]:
    with plugin_code(f"{hook} failed"):
        result = implementation.function()
    if not isinstance(result, (list, tuple)):
        raise PluginError(f"{hook} returned {type(result).__name__}, expected a list of {spec_class.__name__}")
    for item in result:
        if not isinstance(item, spec_class):
            raise PluginError(f"{hook} returned {item!r:.80} in its list, expected {spec_class.__name__}")
    return list(result)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _origin(info: PluginInfo) -> str:
    return f"{info.name!r} ({info.origin})"
