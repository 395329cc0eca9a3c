"""First-party diffusion and flow models: what there is, without importing torch."""

from __future__ import annotations

from mmalign import ConformanceSpec, hookimpl
from mmalign_diffusion.conformance_index import list_conformance


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors the mathematics of these models can compute."""
    return list_conformance()
