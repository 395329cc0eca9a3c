"""A round: what the source hands over at a time, and how it is cut into optimiser steps.

Offline a round is the next batch of records; online it is the rollouts of the next prompts. Everything random in a
round is seeded by (seed, round), so a checkpoint at the end of a round needs no generator state to resume exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import torch
from accelerate.utils import set_seed
from torch import Tensor

from mmalign.compute.overlap import collect_in_parts
from mmalign.contract.batch import Batch
from mmalign.contract.components import Collector
from mmalign.data.records import Record
from mmalign.distribution import shard
from mmalign.errors import DataError
from mmalign.losses.metrics import compute_means
from mmalign.monitoring.sentinels import flat_groups
from mmalign.rewards.scorer import Scoring
from mmalign.run import Run

logger = logging.getLogger(__name__)


def begin_round(run: Run) -> tuple[Batch, dict[str, float]]:
    """Seeds the round and gets its batch with everything that needs no gradient.

    Returns:
        this process's share, and what is known of it before training: the share of responses that were cut to fit a
        limit, and that of records that were skipped for an image, if they may be; of fresh rollouts rewards and
        lengths, too; of a reference that is drawn, which one it is.
    """
    set_seed(_round_seed(run))
    chosen = run.backend.begin_round(f"{run.config.train.seed}|{run.round}")
    if run.assembly.collector is not None:
        batch, metrics = _collect(run, run.assembly.collector)
    else:
        batch, metrics = _read(run), {}
    if run.skips["train"].quarantine:
        metrics["unreadable"] = torch.tensor(run.skips["train"].take_flags(), device=run.backend.device)
    metrics["truncated"] = batch.quantities["lengths"].new_tensor(_is_truncated(batch), dtype=torch.float32)
    _warn_of_truncation(run, batch)
    means = compute_means(metrics, run.backend.sum_over_processes)
    return batch, means | chosen | run.backend.measurement_means(batch)


def iter_minibatches(run: Run, batch: Batch) -> Iterator[Batch]:
    """Cuts the rollouts of a round into mini-batches of `batch_size` prompts; an offline round is one mini-batch."""
    if not run.assembly.online:
        yield batch
        return
    train = run.config.train
    size = max(1, train.batch_size // run.accelerator.num_processes)
    prompt_index = batch.quantities["prompt_index"].cpu()
    for _ in range(train.epochs_per_round):
        order = torch.randperm(len(batch.records))
        for prompts in torch.split(order, size):
            rows = torch.isin(prompt_index, prompts).nonzero().flatten().tolist()
            if rows:  # a collector may leave prompts without responses
                yield batch.select(rows) if len(rows) < len(batch) else batch


def _read(run: Run) -> Batch:
    records = _next_records(run, run.config.train.batch_size)
    batch = run.backend.encode(records, skips=run.skips["train"])
    if not len(batch) and run.accelerator.num_processes > 1:
        # A process without a forward pass would leave the others waiting for its gradient.
        raise DataError(f"{run.source.name}: no response to train on in {len(records)} records, e.g. {records[0].id!r}")
    return run.backend.prepare(batch)


def _collect(run: Run, collector: Collector) -> tuple[Batch, dict[str, Tensor]]:
    train = run.config.train
    prompts = run.skips["train"].keep_readable(_next_records(run, train.prompts_per_round or train.batch_size))
    scoring: Scoring | None = None
    if train.overlap_parts == 1:
        rollouts = collector.collect(prompts, partial(run.backend.generate, network=collector.network))
    else:
        scoring = run.backend.scorer.begin()
        rollouts = collect_in_parts(run.backend, collector, prompts, train.overlap_parts, scoring)
    run.hooks.on_experience_collected(run=run, rollouts=rollouts)
    batch = run.backend.collect(rollouts)
    lengths = batch.quantities["lengths"][batch.quantities["sampled"]].float()
    rescored = [float(one.rescored) for rollout in rollouts for one in rollout.responses]
    metrics: dict[str, Tensor] = {"length": lengths, "sampler_gap/rescored": lengths.new_tensor(rescored)}
    if run.backend.reward_names:
        rewards = scoring.finish() if scoring else run.backend.score_rollouts(rollouts)
        batch = run.backend.add_rewards(batch, rewards)
        run.hooks.on_rewards_computed(run=run, batch=batch)
        metrics |= _reward_metrics(run, batch)
    return run.backend.prepare(batch, rollouts), metrics


def _is_truncated(batch: Batch) -> list[bool]:
    return [response.truncated > 0 for response in batch.responses]


def _warn_of_truncation(run: Run, batch: Batch) -> None:
    cut = sum(_is_truncated(batch))
    if cut and not run.truncation_told:
        run.truncation_told = True
        logger.warning(
            "%d of the %d responses of this batch are cut, or their prompts are, to fit a limit of the modality; "
            "said once, the metric `truncated` goes on counting",
            cut,
            len(batch),
        )


def _reward_metrics(run: Run, batch: Batch) -> dict[str, Tensor]:
    sampled = batch.quantities["sampled"]
    rewards = batch.quantities["rewards"][sampled]
    components = {f"reward/{name}": rewards[:, column] for column, name in enumerate(run.backend.reward_names)}
    composite = batch.quantities["composite_rewards"][sampled]
    multipliers = {f"multiplier/{name}": composite.new_full((1,), one) for name, one in run.backend.multipliers.items()}
    return {
        "reward": composite,
        "reward/unscored": composite.isnan().float(),
        "flat_groups": flat_groups(composite, batch.quantities["prompt_index"][sampled]),
        **components,
        **multipliers,
    }


def _round_seed(run: Run) -> int:
    processes, rank = run.accelerator.num_processes, run.accelerator.process_index
    seed: int = run.config.train.seed * 1_000_003 + run.round * processes + rank
    return seed % 2**32


def _next_records(run: Run, count: int) -> list[Record]:
    records = run.stream.take(count)
    return shard(records, run.accelerator.process_index, run.accelerator.num_processes, "train.batch_size")
