"""What `mmalign check` finds out without weights: the plan, data statistics, parameter counts, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from mmalign.contract.batch import build_batch
from mmalign.contract.values import EncodedResponse
from mmalign.data.records import Record
from mmalign.errors import DataError
from mmalign.hardware import choose_dtype, find_device
from mmalign.losses.objectives import Objective
from mmalign.media.checks import MediaSkips
from mmalign.monitoring.sentinels import check_covered
from mmalign.planning.assembly import Assembly
from mmalign.planning.companions import add_record_quantities
from mmalign.results.output_checks import check_disk, check_outputs
from mmalign.sources.source import Source
from mmalign.training.startup import build_skips, check_machine, check_models, count_steps, open_data
from mmalign.trial.modality import check_announced, is_tried, try_modality
from mmalign.trial.objectives import try_methods
from mmalign.trial.rewards import raise_all, try_rewards
from mmalign.trial.values import TrialSizes

_SAMPLE = 1000
"""Records that are encoded for the statistics."""

_TRAINED_BYTES = {"adamw": 12, "adafactor": 4}
"""Bytes a trained parameter needs beside its own place, by optimiser: its gradient and its moments, in float32."""


@dataclass(frozen=True)
class DataStatistics:
    """Counts over the first records of a source.

    Attributes:
        records: how many were read; `partial` if the source holds more.
        positions: mean length of prompt and response as the model reads them.
        longest: longest of them.
        steps: mean number of scored steps of a response.
        truncated: responses that were cut to fit a limit.
        quarantined: bad lines that were moved aside, and records whose images turned out unreadable.
        stages: records of each stage of training, where a transform makes several.
    """

    name: str
    records: int
    partial: bool
    responses: int = 0
    pairs: int = 0
    labelled: int = 0
    positions: float = 0.0
    longest: int = 0
    steps: float = 0.0
    truncated: int = 0
    quarantined: int = 0
    stages: tuple[int, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What a run would be.

    Attributes:
        assembly: the parts and the plan.
        data: statistics by split.
        total_steps: optimiser steps.
        parameters: (all, trained), or None if only loading would tell.
        memory: bytes of weights, gradients, moments, a reference and teachers; activations come on top. None as above.
        dtype: of the frozen weights.
        notes: what the modality tells of the model and of the records that were encoded.
    """

    assembly: Assembly
    data: dict[str, DataStatistics]
    total_steps: int
    parameters: tuple[int, int] | None
    memory: int | None
    dtype: torch.dtype
    notes: tuple[str, ...] = ()


def inspect_run(assembly: Assembly) -> Inspection:
    """Tries the parts, opens the data and encodes a sample of them; loads no weights but those of a small trial.

    Raises:
        MmalignError: the first thing that would stop the run.
    """
    config = assembly.config
    check_outputs(config)
    _try_methods(assembly)
    check_announced(assembly.modality, assembly.plan)
    check_machine(config)
    check_models(assembly)
    train = open_data(assembly, "train")
    skips = build_skips(config)
    statistics = {"train": _describe_data(assembly, train, assembly.objectives, skips["train"])}
    if config.data.eval:
        statistics["eval"] = _describe_data(assembly, open_data(assembly, "eval"), (), skips["eval"])
    dtype = choose_dtype(config.train.dtype, find_device(), adapter=assembly.modality.adapter)
    parameters = assembly.modality.parameter_counts()
    if parameters is not None:
        check_disk(config, parameters[1])
    return Inspection(
        assembly=assembly,
        data=statistics,
        total_steps=count_steps(config, train),
        parameters=parameters,
        memory=_estimate_memory(assembly, parameters, dtype) if parameters else None,
        dtype=dtype,
        notes=tuple(assembly.modality.notes()),
    )


def _try_methods(assembly: Assembly) -> None:
    """Calls every planned function, module and loss on made-up tensors."""
    names = assembly.scorer.names if assembly.scorer else ()
    sizes = TrialSizes({"rewards": (0, len(names))})
    try_methods(assembly.plan, assembly.objectives, assembly.advantage, sizes).raise_problems()


def _try_parts(assembly: Assembly, records: Sequence[Record], encoded: Sequence[Sequence[EncodedResponse]]) -> None:
    """Asks the rewards and the modality, where that costs little, about the first records."""
    if assembly.scorer:
        raise_all(try_rewards(assembly.scorer.bound, assembly.modality, records[0]))
    responses = [one for own in encoded[:2] for one in own][:4]
    if responses and is_tried(assembly.modality):
        try_modality(assembly.modality, assembly.plan, responses)


def _describe_data(
    assembly: Assembly, source: Source, objectives: Sequence[Objective], skips: MediaSkips
) -> DataStatistics:
    records = list(islice(iter(source), _SAMPLE + 1))
    partial, records = len(records) > _SAMPLE, records[:_SAMPLE]
    if not records:
        raise DataError(f"{source.name}: no records")
    sampled_only = assembly.online and not assembly.keeps_stored
    prompts_only = sampled_only or not any(record.responses for record in records)
    if prompts_only:
        records = [record.with_responses(()) for record in records]
    kept = _encode(assembly, source, records, skips)
    records, encoded = [record for record, _ in kept], [rows for _, rows in kept]
    if objectives and records:
        _try_parts(assembly, records, encoded)
    bad = source.quarantined + len(skips.skipped)
    if prompts_only:
        return DataStatistics(source.name, len(records), partial, quarantined=bad)
    batch = build_batch(records, encoded, targets_only=assembly.targets_only, whole_prompts=assembly.whole_prompts)
    batch = add_record_quantities(batch, assembly.plan, assembly.modality.encode)
    on_data = [one for one in objectives if not one.spec.over or one.spec.over in batch.quantities]
    check_covered(on_data, [objective.totals(batch) for objective in on_data], batch)
    sizes = [response.size for response in batch.responses]
    return DataStatistics(
        name=source.name,
        records=len(records),
        partial=partial,
        responses=len(batch),
        pairs=len(batch.quantities["pairs"]),
        labelled=int(batch.quantities["labelled"].sum()),
        positions=sum(sizes) / max(1, len(sizes)),
        longest=max(sizes, default=0),
        steps=float(batch.quantities["lengths"].double().mean()),
        truncated=sum(response.truncated > 0 for response in batch.responses),
        quarantined=bad,
        stages=source.stages,
    )


def _encode(
    assembly: Assembly, source: Source, records: Sequence[Record], skips: MediaSkips
) -> list[tuple[Record, list[EncodedResponse]]]:
    """Encodes records, so that a prompt or response the modality refuses shows before training."""
    try:
        return skips.apply(records, assembly.modality.encode)
    except DataError as error:
        raise type(error)(f"{source.name}: {error}") from None


def _estimate_memory(assembly: Assembly, parameters: tuple[int, int], dtype: torch.dtype) -> int:
    every, trained = parameters
    reference = 0
    if assembly.plan.needs_reference and assembly.config.reference.strategy != "auto":
        reference = trained * torch.float32.itemsize
    elif assembly.plan.needs_reference and not assembly.modality.adapter:
        reference = every * dtype.itemsize
    counts = [teacher.parameter_counts() for teacher in assembly.teachers.values()]
    frozen = every + sum(count[0] for count in counts if count)
    return frozen * dtype.itemsize + reference + trained * _TRAINED_BYTES[assembly.config.train.optimiser]
