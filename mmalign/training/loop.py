"""The training loop: offline and online, any modality, any objective.

    for every round:
        records  = the next batch, or rollouts of the next prompts
        batch    = records with all quantities that need no gradient
        for every mini-batch: loss = objectives(quantities of the policy); optimiser step

A round is what the source hands over at a time: offline one batch, online one collection; see `rounds.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmalign.contract.batch import Batch
from mmalign.distribution import find_largest, sum_gradients
from mmalign.errors import MediaError, TrainingError
from mmalign.losses.metrics import MetricSums
from mmalign.losses.weighting import weighted_loss
from mmalign.monitoring.progress import Progress
from mmalign.monitoring.sentinels import (
    check_covered,
    check_differentiable,
    check_finite,
    check_gradient,
    check_same_sampler,
    check_same_start,
)
from mmalign.results.checkpoint import SaveClock, save_checkpoint
from mmalign.run import Run
from mmalign.training.evaluation import evaluate
from mmalign.training.interruption import Interruption
from mmalign.training.optimisation import learning_rate, set_learning_rate
from mmalign.training.rounds import begin_round, iter_minibatches

_PATIENCE = 5.0
"""Seconds in which a launcher may pass on a signal that has come already."""


def train(run: Run) -> None:
    """Trains until the last step, or until Ctrl-C or SIGTERM, and leaves a checkpoint."""
    saved = run.step if run.step else -1
    if run.step == 0:
        evaluate(run)
    processes, quiet = run.accelerator.num_processes, not run.accelerator.is_main_process
    clock = SaveClock(run.config.checkpoint.every_minutes)
    with Progress(run.total_steps, start=run.step, quiet=quiet, device=run.accelerator.device) as progress:
        progress.show_held_out(run.step, run.after)
        with Interruption(patience=_PATIENCE if processes > 1 else 0.0) as interruption:
            while not run.finished and not run.stop_signal:
                before = run.step
                _run_round(run, progress)
                if _passed(before, run, run.config.evaluation.every):
                    progress.show_held_out(run.step, evaluate(run))
                due = _agree(run, interruption, clock)
                if _passed(before, run, run.config.checkpoint.every) or due:
                    save(run)
                    clock.restart()
                    saved = run.step
            if saved != run.step and (run.interrupted or run.config.checkpoint.at_end):
                save(run)
    run.learning.finish()
    if run.finished:
        evaluate(run)


def _agree(run: Run, interruption: Interruption, clock: SaveClock) -> bool:
    """Lets all processes know what one has met: a signal, memory that ran out. Returns whether to save by the clock."""
    size = run.backend.micro_batch_size
    signal, due, smallest = find_largest([interruption.signal, clock.due, -size.value], run.accelerator)
    run.stop_signal = int(signal)
    size.lower(-int(smallest))
    return bool(due) and not run.finished


def save(run: Run) -> None:
    """Writes a checkpoint; every process calls it, the main one writes."""
    if run.accelerator.is_main_process:
        save_checkpoint(
            run.output / "checkpoints",
            run.step,
            tensors=run.tensors(),
            state=run.state(),
            keep=run.config.checkpoint.keep,
        )
    run.accelerator.wait_for_everyone()


def _run_round(run: Run, progress: Progress) -> None:
    processes = run.accelerator.num_processes
    batch, metrics = _begin(run)
    for index, minibatch in enumerate(iter_minibatches(run, batch)):
        if run.finished:
            break
        step_metrics = metrics | optimiser_step(run, minibatch, fresh=index == 0)
        run.step += 1
        run.backend.follow_policy(run.step)
        run.learning.see_step(step_metrics, run.backend.reward_names)
        run.log.write(run.step, "train", step_metrics, skip=run.step % run.config.train.log_every != 0)
        run.hooks.on_step_ended(run=run, metrics=step_metrics)
        progress.advance(run.step, step_metrics, responses=len(minibatch) * processes)
    run.round += 1


def _begin(run: Run) -> tuple[Batch, dict[str, float]]:
    """Begins a round; where an image stops the run, leaves a checkpoint from which it can go on."""
    position = run.stream.position
    try:
        return begin_round(run)
    except MediaError as error:
        # Of several processes only this one stopped, and a checkpoint needs all of them.
        if run.step == 0 or run.accelerator.num_processes > 1:
            raise
        run.stream.position = position
        save(run)
        raise MediaError(
            f"{error}; step {run.step} is saved: mend or remove the file and go on with --resume"
        ) from None


def optimiser_step(run: Run, batch: Batch, *, fresh: bool = False) -> dict[str, float]:
    """Makes one update on this process's share of the global batch.

    Args:
        fresh: True if the policy has not changed since the batch was collected.

    Returns:
        metrics averaged over the global batch.
    """
    run.hooks.on_step_starting(run=run, batch=batch)
    rate = learning_rate(run.config.train, run.step, run.total_steps)
    set_learning_rate(run.optimiser, rate)
    sums = accumulate_gradients(run, batch, fresh=fresh)
    sum_gradients(list(run.trainable().values()), run.accelerator)
    norm = _clip(run)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    metrics = sums.compute(run.backend.sum_over_processes) | sums.gap.compute(run.accelerator.gather)
    return metrics | {"grad_norm": norm, "learning_rate": rate}


def accumulate_gradients(run: Run, batch: Batch, *, fresh: bool = False) -> MetricSums:
    """Adds up this process's share of the gradient of the mean loss over the global batch, by micro-batches.

    Where memory runs out, all starts again with smaller micro-batches; see `mmalign.compute.memory`. No process waits
    for another one in here, so each may do so on its own.
    """
    batch = run.backend.prepare_step(batch)
    whole = run.accelerator.num_processes == 1
    run.learning.see_batch(batch, run.assembly.plan.comparing if run.step == 0 else {}, whole=whole)
    totals = [run.backend.sum_over_processes(objective.totals(batch)) for objective in run.objectives]
    if run.step == 0:
        varying = run.assembly.varying
        fixed = [pair for pair in zip(run.objectives, totals, strict=True) if pair[0].spec.over not in varying]
        check_covered([one for one, _ in fixed], [total for _, total in fixed], batch)
    return run.backend.micro_batch_size.run_with_retry(
        len(batch),
        lambda size: _add_gradients(
            run, batch.micro_batches(size, run.config.train.micro_batch_tokens), totals, fresh=fresh
        ),
        reset=lambda: run.optimiser.zero_grad(set_to_none=True),
    )


def _add_gradients(run: Run, parts: Sequence[Batch], totals: Sequence[Tensor], *, fresh: bool) -> MetricSums:
    sums = MetricSums()
    for index, part in enumerate(parts):
        # Gradients are summed over processes at the end, by `sum_gradients`.
        with run.accelerator.no_sync(run.backend.policy):
            values = run.backend.policy_values(part)
            if index == 0:
                rate = learning_rate(run.config.train, run.step, run.total_steps)
                run.learning.see_logps(values, run.step, rate)
            if fresh and index == 0:
                check_same_start(values, run.step)
            if fresh and run.assembly.samples_policy:
                if sums.gap.empty:
                    check_same_sampler(values)
                sums.gap.add(values)
            loss = weighted_loss(run.objectives, values, totals, sums)
            check_differentiable(loss, run.objectives)
            check_finite(loss, values)
            # The weights of the losses sum to one over all processes, so their gradients are added up, not averaged.
            run.accelerator.backward(loss)
    return sums


def _clip(run: Run) -> float:
    limit = run.config.train.max_grad_norm
    parameters = list(run.trainable().values())
    norm = run.accelerator.clip_grad_norm_(parameters, limit if limit is not None else float("inf"))
    if norm is None:
        raise TrainingError("no trained parameter got a gradient; the objective may not depend on the policy")
    check_gradient(norm, scaled=run.accelerator.mixed_precision == "fp16")
    return float(norm)


def _passed(before: int, run: Run, every: int) -> bool:
    """Returns whether a round, which may hold several steps, passed a multiple of `every`; the end has its own turn."""
    return every > 0 and run.step // every > before // every and not run.finished
