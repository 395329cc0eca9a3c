"""First-party objectives: what there is, without importing torch.

A method's module has its loss, its config model and, in `SPECS`, what it registers. `python -m
mmalign_objectives.generate` collects these into `index.json`, from which they are registered.
"""

from __future__ import annotations

from mmalign import ConformanceSpec, ObjectiveSpec, QuantitySpec, hookimpl
from mmalign_objectives.conformance.index import list_conformance
from mmalign_objectives.index import read_objectives, read_quantities


@hookimpl
def register_objectives() -> list[ObjectiveSpec]:
    """Announces the objectives."""
    return read_objectives()


@hookimpl
def register_quantities() -> list[QuantitySpec]:
    """Announces what these objectives need beside the quantities of the contract."""
    return read_quantities()


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors these objectives can compute."""
    return list_conformance()
