"""Writes `index.json`: what every module of this plugin declares in `SPECS`, as plain data.

python -m mmalign_objectives.generate           write it
python -m mmalign_objectives.generate --check   fail if it is stale
"""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from typing import Any

import mmalign_objectives
from mmalign import ObjectiveSpec, QuantitySpec
from mmalign_objectives.index import INDEX

Declared = ObjectiveSpec | QuantitySpec


def render_index() -> str:
    """Renders the specs of all modules as JSON: by kind, module and place in `SPECS`, without fields at their default.

    Raises:
        TypeError: a `SPECS` has something else than specs of objectives and quantities.
    """
    index: dict[str, list[dict[str, Any]]] = {ObjectiveSpec.kind: [], QuantitySpec.kind: []}
    for module, spec in iter_declared():
        if not isinstance(spec, ObjectiveSpec | QuantitySpec):
            raise TypeError(f"{module}.SPECS: expected specs of objectives and quantities, got {spec!r}")
        index[spec.kind].append({one.name: getattr(spec, one.name) for one in fields(spec) if _is_set(spec, one)})
    return json.dumps(index, indent=1, ensure_ascii=False) + "\n"


def iter_declared() -> Iterator[tuple[str, Any]]:
    """Imports every module of this plugin and yields its name with each of its `SPECS`."""
    found = pkgutil.walk_packages(mmalign_objectives.__path__, "mmalign_objectives.")
    for module in sorted(one.name for one in found if not one.name.endswith("__main__")):
        for spec in getattr(import_module(module), "SPECS", ()):
            yield module, spec


def main(arguments: Sequence[str]) -> int:
    """Writes or checks the index; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mmalign_objectives.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the index is stale, write nothing")
    check = parser.parse_args(arguments).check
    index = render_index()
    if check and (not INDEX.exists() or INDEX.read_text(encoding="utf-8") != index):
        sys.stderr.write(f"{INDEX} is stale: run `make docs`\n")
        return 1
    if not check:
        INDEX.write_text(index, encoding="utf-8")
    return 0


def _is_set(spec: Declared, field: Field[Any]) -> bool:
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return bool(getattr(spec, field.name) != default)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
