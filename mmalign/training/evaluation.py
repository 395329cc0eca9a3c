"""Held-out evaluation: the objectives on held-out feedback, and the configured evaluators."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from accelerate.utils import set_seed
from torch import Tensor

from mmalign.contract.batch import Batch
from mmalign.contract.components import EvaluationContext
from mmalign.data.records import Record, Response
from mmalign.distribution import shard
from mmalign.losses.metrics import MetricSums
from mmalign.losses.objectives import Objective
from mmalign.losses.weighting import weighted_loss
from mmalign.monitoring.sentinels import describe_elements
from mmalign.networks.policy import evaluation_mode
from mmalign.results.sample_grids import write_grid
from mmalign.run import Run

logger = logging.getLogger(__name__)

Example = tuple[str, str]

_SEED = 20_240_001
"""Every evaluation samples with the same random numbers, so that before and after differ by the weights alone."""


def evaluate(run: Run) -> dict[str, float]:
    """Evaluates on the held-out records, logs the metrics and remembers them as before or after training."""
    if not run.held_out:
        return {}
    metrics, examples = measure(run)
    run.log.write(run.step, "eval", metrics)
    run.hooks.on_evaluated(run=run, metrics=metrics)
    if run.step == 0:
        run.before, run.examples_before = metrics, examples
    run.after, run.examples_after = metrics, examples
    for prompt, response in examples:
        logger.info("example at step %d: prompt: %s\nresponse: %s", run.step, prompt, response)
    images = [row for evaluator in run.assembly.evaluators.values() for row in evaluator.images]
    if images and run.accelerator.is_main_process:
        write_grid(run, images)
    return metrics


def measure(run: Run) -> tuple[dict[str, float], list[Example]]:
    """Computes the held-out metrics and some (prompt, response) examples; changes nothing but the generators' state.

    Training does not depend on that state: every round seeds its own.
    """
    set_seed(_SEED)
    records = run.skips["eval"].keep_readable(run.held_out) if run.assembly.evaluators else ()
    metrics = _measure_objectives(run)
    examples: list[Example] = []
    with evaluation_mode(run.policy):
        for name, evaluator in run.assembly.evaluators.items():
            # Every process evaluates all records: a sharded network needs all processes in every forward pass.
            result = evaluator.evaluate(EvaluationContext(records, run.backend, run.backend.generate_by_policy))
            metrics |= {f"{name}/{key}": value for key, value in result.items()}
            examples = examples or _render(run, evaluator.examples)
    return metrics, examples


def _measure_objectives(run: Run) -> dict[str, float]:
    """Averages the objectives' loss and metrics over the stored held-out responses, if there are any."""
    if run.assembly.online or not any(record.responses for record in run.held_out):
        return {}
    backend = run.backend
    with evaluation_mode(run.policy):
        batch = backend.prepare_step(_held_out_batch(run), training=False)
        totals = [(one, backend.sum_over_processes(one.totals(batch))) for one in run.objectives]
        covered = [(objective, total) for objective, total in totals if total[0]]
        metrics = backend.measurement_means(batch)
        if covered:
            sums = backend.micro_batch_size.run_with_retry(
                len(batch), lambda size: _add_metrics(run, batch.micro_batches(size), covered)
            )
            metrics = sums.compute(backend.sum_over_processes) | metrics
    if len(covered) < len(totals):
        metrics.pop("loss", None)  # a sum of some of the terms is not the loss of training
        _tell_uncovered(run, [objective for objective, total in totals if not total[0]])
    return metrics


@torch.no_grad()
def _add_metrics(run: Run, parts: Sequence[Batch], covered: Sequence[tuple[Objective, Tensor]]) -> MetricSums:
    sums = MetricSums()
    objectives, totals = [one for one, _ in covered], [total for _, total in covered]
    for part in parts:
        weighted_loss(objectives, run.backend.policy_values(part), totals, sums)
    return sums


def _tell_uncovered(run: Run, objectives: Sequence[Objective]) -> None:
    """Says once which objectives have nothing to measure among the held-out records; a mean of nothing is no 0."""
    for objective in objectives:
        run.learning.tell(
            f"uncovered {objective.spec.name}",
            "data.eval: objective %r is not measured: it is about %s, and the %d held-out records have none",
            objective.spec.name,
            describe_elements(objective.spec),
            len(run.held_out),
        )


def _held_out_batch(run: Run) -> Batch:
    """Prepares the held-out batch, once unless trained weights or a reference that moves have a say in it."""
    if run.held_out_batch is None or run.backend.reference_moves or "policy" in run.assembly.modality.required_networks:
        processes, rank = run.accelerator.num_processes, run.accelerator.process_index
        records = shard(run.held_out, rank, processes, "data.eval")
        run.held_out_batch = run.backend.prepare(run.backend.encode(records, skips=run.skips["eval"]))
    return run.held_out_batch


def _render(run: Run, examples: Sequence[tuple[Record, Response | str, float]]) -> list[Example]:
    shown = examples[: run.config.evaluation.examples]
    describe = run.assembly.modality.describe
    return [
        (record.prompt_text, response if isinstance(response, str) else describe(record, response))
        for record, response, _ in shown
    ]
