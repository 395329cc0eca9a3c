"""Import strings of plugins that lead nowhere: found by reading sources, or, for certain, by importing everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmalign.contract.signatures import resolve
from mmalign.contract.specs import Spec
from mmalign.errors import PluginError
from mmalign.import_strings import load_object
from mmalign.plugins.registry import KINDS, Registry

_ATTRIBUTES = ("config", "target", "loss", "function", "compute", "module")


class BrokenString(NamedTuple):
    """An import string that leads nowhere, and whose it is."""

    plugin: str
    part: str
    error: str


def find_broken(registry: Registry, *, load: bool) -> list[BrokenString]:
    """Finds import strings of available parts that lead nowhere.

    Args:
        load: import what every string names; else only what its source does not tell.
    """
    entries = [entry for kind in (*KINDS, "conformance") for entry in registry.entries(kind)]
    broken = []
    for entry in entries:
        name = getattr(entry.spec, "name", "") or entry.spec.method
        for string in () if entry.unavailable else iter_import_strings(entry.spec):
            try:
                load_object(string) if load else resolve(string)
            except PluginError as error:
                broken.append(BrokenString(entry.plugin.name, f"{entry.spec.kind} {name!r}", str(error)))
    return broken


def iter_import_strings(spec: Spec | Any) -> Iterator[str]:
    """Yields every import string of a spec."""
    yield from filter(None, (getattr(spec, attribute, "") for attribute in _ATTRIBUTES))
