"""The training loop: offline and online, any modality, any objective.

    for every round:
        records  = the next batch, or rollouts of the next prompts
        batch    = records with all quantities that need no gradient
        for every mini-batch: loss = objectives(quantities of the policy); optimiser step

A round is what the source hands over at a time: offline one batch, online one collection. Everything random in a round is
seeded by (seed, round), so a checkpoint at the end of a round needs no generator state to resume exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from accelerate.utils import set_seed
from torch import Tensor

from mmalign.batch import Batch
from mmalign.checkpoint import save_checkpoint
from mmalign.distribution import take_share
from mmalign.errors import TrainingError
from mmalign.evaluation import evaluate
from mmalign.interruption import Interruption
from mmalign.metrics import MetricSums, compute_means
from mmalign.optimisation import learning_rate, set_learning_rate
from mmalign.progress import Progress
from mmalign.records import Record
from mmalign.run import Run
from mmalign.sentinels import (
    check_covered,
    check_finite,
    check_gradient,
    check_same_sampler,
    check_same_start,
    flat_groups,
)
from mmalign.weighting import weighted_loss


def train(run: Run) -> None:
    """Trains until the last step, or until Ctrl-C, and leaves a checkpoint."""
    if run.step == 0:
        evaluate(run)
    with Progress(run.total_steps, start=run.step) as progress, Interruption() as interruption:
        while not run.finished and not interruption.requested:
            _run_round(run, progress)
            if _due(run, run.config.evaluation.every) and not run.finished:
                evaluate(run)
            if _due(run, run.config.checkpoint.every) and not run.finished:
                save(run)
        run.interrupted = not run.finished
    save(run)
    if run.finished:
        evaluate(run)


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
    set_seed(_round_seed(run))
    batch, metrics = _collect(run) if run.assembly.online else (_read(run), {})
    for index, minibatch in enumerate(_minibatches(run, batch)):
        if run.finished:
            break
        step_metrics = metrics | optimiser_step(run, minibatch, fresh=index == 0)
        run.step += 1
        run.log.write(run.step, "train", step_metrics, skip=run.step % run.config.train.log_every != 0)
        run.hooks.on_step_ended(run=run, metrics=step_metrics)
        progress.advance(run.step, step_metrics, responses=len(minibatch) * processes)
    run.round += 1


def _round_seed(run: Run) -> int:
    processes, rank = run.accelerator.num_processes, run.accelerator.process_index
    return (run.config.train.seed * 1_000_003 + run.round * processes + rank) % 2**32


def _next_records(run: Run, count: int) -> list[Record]:
    records = run.stream.take(count)
    return take_share(records, run.accelerator.process_index, run.accelerator.num_processes, "train.batch_size")


def _read(run: Run) -> Batch:
    return run.backend.prepare(run.backend.encode(_next_records(run, run.config.train.batch_size)))


def _collect(run: Run) -> tuple[Batch, dict[str, float]]:
    train = run.config.train
    prompts = _next_records(run, train.prompts_per_round or train.batch_size)
    rollouts = run.assembly.collector.collect(prompts, run.backend.generate)  # type: ignore[union-attr]
    run.hooks.on_experience_collected(run=run, rollouts=rollouts)
    batch = run.backend.collect(rollouts)
    metrics: dict[str, Tensor] = {"length": batch.quantities["lengths"].float()}
    if run.backend.reward_names:
        batch = run.backend.score_rewards(batch, rollouts)
        run.hooks.on_rewards_computed(run=run, batch=batch)
        metrics |= _reward_metrics(run, batch)
    return run.backend.prepare(batch, rollouts), compute_means(metrics, run.backend.sum_over_processes)


def _reward_metrics(run: Run, batch: Batch) -> dict[str, Tensor]:
    rewards = batch.quantities["rewards"]
    components = {f"reward/{name}": rewards[:, column] for column, name in enumerate(run.backend.reward_names)}
    composite = batch.quantities["composite_rewards"]
    return {
        "reward": composite,
        "reward/unscored": composite.isnan().float(),
        "flat_groups": flat_groups(composite, batch.quantities["prompt_index"]),
        **components,
    }


def _round_seed(run: Run) -> int:
    processes, rank = run.accelerator.num_processes, run.accelerator.process_index
    return (run.config.train.seed * 1_000_003 + run.round * processes + rank) % 2**32


def _next_records(run: Run, count: int) -> list[Record]:
    records = run.stream.take(count)
    return take_share(records, run.accelerator.process_index, run.accelerator.num_processes, "train.batch_size")


def _read(run: Run) -> Batch:
    return run.backend.prepare(run.backend.encode(_next_records(run, run.config.train.batch_size)))


def _collect(run: Run) -> tuple[Batch, dict[str, float]]:
    train = run.config.train
    prompts = _share(run, run.stream.take(train.prompts_per_round or train.batch_size))
    rollouts = run.assembly.collector.collect(prompts, run.backend.generate)  # type: ignore[union-attr]
    run.hooks.on_experience_collected(run=run, rollouts=rollouts)
    batch = run.backend.collect(rollouts)
    metrics: dict[str, Tensor] = {"length": batch.quantities["lengths"].float()}
    flat = 0
    if run.backend.reward_names:
        batch = run.backend.score_rewards(batch, rollouts)
        run.hooks.on_rewards_computed(run=run, batch=batch)
        metrics["reward"] = batch.quantities["composite_rewards"]
        for column, name in enumerate(run.backend.reward_names):
            metrics[f"reward/{name}"] = batch.quantities["rewards"][:, column]
        flat = count_flat_groups(batch)
    means = {name: float(value[~value.isnan()].mean()) for name, value in metrics.items()}
    return run.backend.prepare(batch, rollouts), means | {"flat_groups": float(flat)}


def _minibatches(run: Run, batch: Batch) -> Iterator[Batch]:
    """Cuts the rollouts of a round into mini-batches of `batch_size` prompts; an offline round is one mini-batch."""
    if not run.assembly.online:
        yield batch
        return
    train = run.config.train
    size = max(1, train.batch_size // run.accelerator.num_processes)
    prompt_index = batch.quantities["prompt_index"].cpu()
    for _ in range(train.epochs_per_round):
        order = torch.randperm(len(batch.records))
        for prompts in order.split(size):
            rows = torch.isin(prompt_index, prompts).nonzero().flatten().tolist()
            yield batch.select(rows) if len(rows) < len(batch) else batch


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
    norm = _clip(run)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    return sums.compute(run.backend.sum_over_processes) | {"grad_norm": float(norm), "learning_rate": rate}


def accumulate_gradients(run: Run, batch: Batch, *, fresh: bool = False) -> MetricSums:
    """Adds up the gradient of the mean loss over the global batch, micro-batch by micro-batch."""
    batch = run.backend.prepare_step(batch)
    totals = [run.backend.sum_over_processes(objective.totals(batch)) for objective in run.objectives]
    if run.step == 0:
        check_covered(run.objectives, totals, batch)
    sums = MetricSums()
    parts = batch.micro_batches(run.config.train.micro_batch_size)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        with nullcontext() if last else run.accelerator.no_sync(run.backend.policy):
            values = run.backend.policy_values(part)
            if fresh and index == 0:
                check_same_start(values, run.step)
                check_same_sampler(values)
            loss = weighted_loss(run.objectives, values, totals, sums)
            check_finite(loss, values)
            # Distributed wrappers average gradients over processes; the weights already sum to one over all of them.
            run.accelerator.backward(loss * run.accelerator.num_processes)
    return sums


def _clip(run: Run) -> Tensor:
    limit = run.config.train.max_grad_norm
    parameters = list(run.trainable().values())
    norm = run.accelerator.clip_grad_norm_(parameters, limit if limit is not None else float("inf"))
    if norm is None:
        raise TrainingError("no trained parameter got a gradient; the objective may not depend on the policy")
    check_gradient(norm, scaled=run.config.train.mixed_precision == "fp16")
    return norm


def _due(run: Run, every: int) -> bool:
    return every > 0 and run.step % every == 0
