"""First-party collectors: how prompts become rollouts of the current policy."""

from __future__ import annotations

from mmalign import CollectorSpec, hookimpl


@hookimpl
def register_collectors() -> list[CollectorSpec]:
    """Announces the collectors."""
    return [
        CollectorSpec(
            name="group",
            summary="A group of independent responses to every prompt.",
            target="mmalign_collectors.group:GroupCollector",
            config="mmalign_collectors.group:GroupConfig",
        ),
    ]
