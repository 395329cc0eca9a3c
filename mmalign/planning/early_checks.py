"""What can be said of a configuration without torch: its keys, the names of its parts, and their keys.

A command that will need torch, which takes seconds to load, asks here first, so that a slip of the pen is answered at
once. Everything is checked again, and completely, where the parts are bound (`mmalign.planning.assembly`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmalign.config.components import Component, key_path
from mmalign.config.declared_keys import declared_keys, imports_heavy
from mmalign.config.reading import Overrides
from mmalign.config.run_config import COMPONENT_KINDS, RunConfig, load_config
from mmalign.config.validation import validate_parameters
from mmalign.errors import ConfigError, ErrorList, suggest
from mmalign.plugins.registry import Registry, load_registry


def check_early(path: str | Path, overrides: Overrides = (), *, disabled: Sequence[str] = ()) -> RunConfig:
    """Checks a configuration file as far as that needs no torch, and returns it.

    Raises:
        ConfigError: a key, a value or the name of a part is wrong.
        PluginError: a part needs what is not installed.
    """
    config = load_config(path, overrides)
    # A plugin file would run here and again in the command itself.
    if not config.plugins:
        check_parts(config, load_registry(disabled=disabled), str(path))
    return config


def check_parts(config: RunConfig, registry: Registry, source: str = "") -> None:
    """Looks up every part that `config` names, and checks its keys; values where its config model loads without torch.

    Raises:
        ConfigError: names or keys are unknown, or values are wrong; one line each.
    """
    errors = ErrorList()
    for kind, component, where in iter_components(config):
        with errors.collecting():
            _check_part(kind, component, where, registry, source)
    errors.raise_all()


def _check_part(kind: str, component: Component, where: str, registry: Registry, source: str) -> None:
    prefix = f"{source}: " if source else ""
    spec = registry.find(kind, component.name, f"{prefix}{where}.name").spec
    if not imports_heavy(spec.config):
        validate_parameters(spec, component.parameters, where, source)
    elif (known := declared_keys(spec.config)) is not None:
        unknown = [key for key in component.parameters if key not in known]
        if unknown:
            lines = (f"{prefix}{where}.{key}: unknown key {key!r}{suggest(key, known)}" for key in unknown)
            raise ConfigError("\n".join(lines))


def iter_components(config: RunConfig) -> Iterator[tuple[str, Component, str]]:
    """Yields the kind of every part that a configuration names, its component and its key path."""
    for path, kind in COMPONENT_KINDS.items():
        found: Any = config
        for key in path.split("."):
            found = getattr(found, key, None)
        components = found if isinstance(found, (list, tuple)) else () if found is None else (found,)
        for index, component in enumerate(components):
            known = component if isinstance(component, Component) else Component.model_validate(component)
            yield kind, known, f"{path}[{index}]" if kind == "transform" else key_path(path, index, components)
