"""First-party evaluators: metrics of a model on held-out records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmalign import ConformanceSpec, EvaluatorSpec, hookimpl

_POLICY = ("policy_chosen_logps", "policy_rejected_logps")
_REFERENCE = ("ref_chosen_logps", "ref_rejected_logps")
_LENGTHS = ("chosen_lengths", "rejected_lengths")


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
        EvaluatorSpec(
            name="preference",
            summary="Ranks held-out pairs: accuracies and their ceiling, margins, likelihood displacement, lengths.",
            target="mmalign_evaluators.preference:PreferenceEvaluator",
            config="mmalign_evaluators.preference:PreferenceConfig",
            paper="Preference Learning Algorithms Do Not Learn Preference Rankings (arXiv:2405.19534)",
        ),
        EvaluatorSpec(
            name="samples",
            summary="Samples the same held-out prompts with the same noise each time, to look at: start beside now.",
            target="mmalign_evaluators.samples:SamplesEvaluator",
            config="mmalign_evaluators.samples:SamplesConfig",
        ),
    ]


@hookimpl
def register_conformance() -> list[ConformanceSpec]:
    """Announces which golden vectors the diagnostics can compute."""
    ideal = (*_REFERENCE, "alpha_prop")
    cases = [
        ("ranking_accuracy_sum", "ranking_accuracy_sum", _POLICY, ()),
        ("ranking_accuracy_mean", "ranking_accuracy_mean", (*_POLICY, *_LENGTHS), ()),
        ("reward_accuracy", "reward_accuracy", (*_POLICY, *_REFERENCE), ()),
        ("idealized_log_ratio_sum", "idealised_log_ratio_sum", ideal, ("ideal_beta",)),
        ("idealized_log_ratio_mean", "idealised_log_ratio_mean", (*ideal, *_LENGTHS), ("ideal_beta",)),
        ("idealized_accuracy_sum", "idealised_accuracy_sum", ideal, ("ideal_beta",)),
        ("flip_threshold", "flip_threshold", _REFERENCE, ("beta",)),
        ("rso_accept_prob", "acceptance", ("chosen_reward",), ("rso_beta",)),
    ]
    return [
        ConformanceSpec(method, f"mmalign_evaluators.conformance:compute_{function}", inputs, hparams)
        for method, function, inputs, hparams in cases
    ]


@hookimpl
def on_report_writing(run: Any, directory: Path) -> None:
    """Writes the latest metrics on preference pairs, with a histogram of the margins, to `preference.md`."""
    from mmalign_evaluators.preference import PreferenceEvaluator, render_report

    for name, evaluator in run.assembly.evaluators.items():
        if isinstance(evaluator, PreferenceEvaluator) and len(evaluator.margins):
            metrics = {
                key.removeprefix(f"{name}/"): value for key, value in run.after.items() if key.startswith(f"{name}/")
            }
            (directory / f"{name}.md").write_text(render_report(metrics, evaluator.margins), encoding="utf-8")
