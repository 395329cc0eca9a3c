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
        CollectorSpec(
            name="mixed",
            summary="A group of independent responses to every prompt, beside the stored ones and their feedback.",
            target="mmalign_collectors.mixed:MixedCollector",
            config="mmalign_collectors.group:GroupConfig",
            stored=True,
        ),
        CollectorSpec(
            name="revise",
            summary="Answers to every prompt, each improved on by the policy itself, several times if wanted.",
            target="mmalign_collectors.revise:ReviseCollector",
            config="mmalign_collectors.revise:ReviseConfig",
            paper="Self-Improving Robust Preference Optimization (arXiv:2406.01660)",
        ),
        CollectorSpec(
            name="self_play",
            summary="Pairs of stored responses and samples of the reference, which may be an earlier policy.",
            target="mmalign_collectors.self_play:SelfPlayCollector",
            config="mmalign_collectors.self_play:SelfPlayConfig",
            paper="SePPO: Semi-Policy Preference Optimization for Diffusion Alignment (arXiv:2410.05255)",
            provides=("pairs",),
        ),
    ]
