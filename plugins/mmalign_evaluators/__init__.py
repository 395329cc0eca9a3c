"""First-party evaluators: metrics of a model on held-out records."""

from __future__ import annotations

from mmalign import EvaluatorSpec, hookimpl


@hookimpl
def register_evaluators() -> list[EvaluatorSpec]:
    """Announces the evaluators."""
    return [
        EvaluatorSpec(
            name="generation",
            summary="Samples held-out prompts: reward with a bootstrap interval, KL to the reference, length.",
            target="mmalign_evaluators.generation:GenerationEvaluator",
            config="mmalign_evaluators.generation:GenerationConfig",
        ),
    ]
