"""Builds a run: opens its data, loads its model, wraps both for the processes of the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import ceil
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, set_seed
from torch import Tensor

from mmalign.compute.backend import Backend
from mmalign.compute.memory import MicroBatchSize
from mmalign.config.run_config import RunConfig
from mmalign.contract.modality import Modality
from mmalign.contract.values import Model
from mmalign.errors import ConfigError
from mmalign.hardware import choose_dtype, choose_precision, find_device
from mmalign.media.checks import MediaCheck, MediaSkips, repeat_choice
from mmalign.monitoring.metrics_log import MetricsLog, check_trackers
from mmalign.networks.adapters import leave_casts_to_autocast
from mmalign.networks.policy import Policy
from mmalign.planning.assembly import Assembly, build_transforms
from mmalign.planning.record_checks import RecordCheck
from mmalign.references.fingerprints import describe_scoring, hash_tensors
from mmalign.references.past_reference import PastPolicies
from mmalign.references.reference import (
    AdapterOff,
    Extrapolation,
    FixedReference,
    FrozenCopy,
    FrozenModel,
    MovingAverage,
    PeriodicSync,
    Reference,
)
from mmalign.references.reference_cache import ReferenceCache
from mmalign.references.teachers import check_vocabularies, load_teachers
from mmalign.run import Run
from mmalign.sources.reading import CheckMedia
from mmalign.sources.source import Source, open_source
from mmalign.sources.stream import RecordStream
from mmalign.training.optimisation import build_optimiser


def build_run(
    assembly: Assembly,
    output: Path,
    *,
    resumed_step: int | None = None,
    left_out: Mapping[str, Collection[str]] | None = None,
    training: bool = True,
) -> Run:
    """Opens the data and loads the model.

    Args:
        output: folder of the run.
        resumed_step: the step of the checkpoint that will be restored, so that the metrics log can be cut to it.
        left_out: ids of records, by split, that this run left out for their media when it began; None for a new run.
        training: False for a run that only generates or evaluates: it needs no training data, which may be about to
            be made with it.
    """
    config = assembly.config
    check_machine(config)
    check_models(assembly)
    device = find_device()
    dtype = choose_dtype(config.train.dtype, device, adapter=assembly.modality.adapter)
    accelerator = _build_accelerator(assembly, dtype, output)
    _check_shares(config, accelerator.num_processes)
    set_seed(config.train.seed)
    source = _open(assembly, "train", left_out, wanted=training)
    held_out = _open(assembly, "eval", left_out, wanted=config.data.eval is not None)
    model, policy = _load_policy(assembly, accelerator, dtype)
    # A frozen copy must be taken before the network is wrapped or trained.
    reference = _build_reference(assembly, policy, accelerator)
    teachers = load_teachers(assembly, accelerator.device, dtype, accelerator.autocast)
    optimiser = build_optimiser(policy, config.train)
    wrapped, prepared = accelerator.prepare(policy, optimiser)
    policy.train()
    return Run(
        assembly=assembly,
        accelerator=accelerator,
        model=model,
        policy=policy,
        optimiser=prepared,
        backend=_build_backend(assembly, accelerator, wrapped, policy, reference, teachers),
        stream=RecordStream(source, shuffle=config.data.train.shuffle, seed=config.train.seed),
        source=source,
        held_out=tuple(held_out),
        log=MetricsLog(output, config.trackers, accelerator, resumed_step=resumed_step),
        output=output,
        total_steps=count_steps(config, source) if training else 0,
        left_out={"train": source.left_out, "eval": held_out.left_out},
        skips=build_skips(config),
    )


def _open(assembly: Assembly, split: str, left_out: Mapping[str, Collection[str]] | None, *, wanted: bool) -> Source:
    return open_data(assembly, split, left_out) if wanted else Source("", "", lambda source: iter(()))


def _load_policy(assembly: Assembly, accelerator: Accelerator, dtype: torch.dtype) -> tuple[Model, Policy]:
    model = _load_model(assembly, accelerator.device, dtype)
    heads = [name for name in ("scores", "values") if name in assembly.plan.forward.outputs]
    policy = Policy(assembly.modality, model, heads, assembly.plan.trained).to(accelerator.device)
    if not assembly.plan.forward:
        # Only heads are trained; wrappers for several processes refuse parameters that no pass uses.
        policy.network.requires_grad_(False)
    if assembly.modality.adapter and accelerator.mixed_precision != "no":
        leave_casts_to_autocast(policy)
    return model, policy


def _build_backend(
    assembly: Assembly,
    accelerator: Accelerator,
    wrapped: Callable[..., dict[str, Tensor]],
    policy: Policy,
    reference: Reference | None,
    teachers: Mapping[str, FrozenModel],
) -> Backend:
    return Backend(
        assembly=assembly,
        policy=wrapped,
        unwrapped=policy,
        reference=reference,
        device=accelerator.device,
        autocast=accelerator.autocast,
        micro_batch_size=MicroBatchSize(assembly.config.train.micro_batch_size),
        sum_over_processes=lambda value: cast(Tensor, accelerator.reduce(value, "sum")),
        reference_cache=_build_cache(assembly, assembly.modality, reference, accelerator),
        teachers=teachers,
        teacher_caches=_build_teacher_caches(assembly, teachers, accelerator),
        process_index=accelerator.process_index,
        processes=accelerator.num_processes,
    )


def check_models(assembly: Assembly) -> None:
    """Compares what encodes records with the configurations of the policy and of its teachers; loads no weights.

    Raises:
        ConfigError: they do not fit.
    """
    check_vocabularies(assembly)
    for modality in (assembly.modality, *assembly.teachers.values()):
        modality.check_model()


def check_machine(config: RunConfig) -> None:
    """Checks that this machine has what the configuration asks for.

    Raises:
        ConfigError: a tracker that is not installed, or a precision that the hardware lacks.
    """
    check_trackers(config.trackers)
    if config.train.mixed_precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError("train.mixed_precision: fp16 needs a GPU; use bf16 or no")


def _build_accelerator(assembly: Assembly, dtype: torch.dtype, output: Path) -> Accelerator:
    config = assembly.config
    precision = choose_precision(config.train.mixed_precision, dtype, adapter=assembly.modality.adapter)
    # The state is global and would refuse a second run of this process with another precision.
    AcceleratorState._reset_state()
    trackers = list(config.trackers) or None
    # Buffers never differ here, and a forward pass that waits for other processes would need equally many of each.
    skips = assembly.modality.has_unused_parameters
    wrapper = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=skips)
    return Accelerator(mixed_precision=precision, log_with=trackers, project_dir=str(output), kwargs_handlers=[wrapper])


def _check_shares(config: RunConfig, processes: int) -> None:
    """Processes must make equally many updates a round, or they would wait for each other for ever."""
    train = config.train
    for name, count in (("batch_size", train.batch_size), ("prompts_per_round", train.prompts_per_round)):
        if count is not None and count % processes:
            raise ConfigError(f"train.{name}: {count} is not a multiple of the {processes} processes")


def open_data(assembly: Assembly, split: str, left_out: Mapping[str, Collection[str]] | None = None) -> Source:
    """Opens the `train` or `eval` records with their transforms; `left_out` as in `build_run`."""
    data = getattr(assembly.config.data, split)
    transforms = build_transforms(assembly.registry, data.transforms, f"data.{split}")
    looks = data.on_error == "quarantine" and left_out is None and assembly.config.data.check_media != "off"
    return open_source(
        data,
        transforms,
        where=f"data.{split}",
        check_media=_choose_check(assembly.config, split, left_out),
        check_record=RecordCheck(assembly, media=looks),
        check_limit=assembly.config.data.check_records,
        registry=assembly.registry,
    )


def _choose_check(config: RunConfig, split: str, left_out: Mapping[str, Collection[str]] | None) -> CheckMedia | None:
    data = getattr(config.data, split)
    if data.on_error == "quarantine" and data.streaming:
        # How many records were read says where a stream goes on; that must not depend on the state of the images.
        return None
    if data.on_error == "quarantine" and left_out is not None:
        return repeat_choice(left_out.get(split, ()))
    return MediaCheck(config.data.check_media, config.data.media_limits).check


def build_skips(config: RunConfig) -> dict[str, MediaSkips]:
    """Builds, by split, what happens to records whose images cannot be read once the data are open."""
    splits = {"train": config.data.train, "eval": config.data.eval or config.data.train}
    return {name: MediaSkips(data.on_error == "quarantine", config.data.media_limits) for name, data in splits.items()}


def _load_model(assembly: Assembly, device: torch.device, dtype: torch.dtype) -> Model:
    config = assembly.config.train
    if assembly.online:
        assembly.modality.temperature = assembly.decoding.temperature
    model = assembly.modality.load(device=device, dtype=dtype)
    if config.gradient_checkpointing:
        _checkpoint_gradients(model.network)
    return model


def _checkpoint_gradients(network: Any) -> None:
    if enable := getattr(network, "gradient_checkpointing_enable", None):  # transformers
        enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif enable := getattr(network, "enable_gradient_checkpointing", None):  # diffusers, never reentrant
        enable()
    else:
        raise ConfigError("train.gradient_checkpointing: this model does not support it; set it to false")


def _build_reference(assembly: Assembly, policy: Policy, accelerator: Accelerator) -> Reference | None:
    config = assembly.config.reference
    asked = (
        assembly.plan.needs_reference
        or "reference" in assembly.modality.required_networks
        or not assembly.samples_policy
    )
    wanted = asked or bool(assembly.evaluators)
    if config.strategy != "auto" and _is_sharded(accelerator):
        raise ConfigError(f"reference.strategy: {config.strategy!r} needs the whole weights in every process; use auto")
    moving = config.decay is not None or config.every is not None
    if moving and "reference_states" in assembly.plan and not assembly.modality.adapter:
        expected = "an objective compares whole distributions, which a moving reference has only where an adapter is"
        raise ConfigError(f"reference.strategy: {config.strategy!r}, but {expected} trained; use auto, or `lora`")
    if config.decay is not None:
        return MovingAverage(policy, config.decay)
    if config.every is not None and config.keep is not None:
        return PastPolicies(policy, config.every, config.keep)
    if config.every is not None and config.momentum is not None:
        return Extrapolation(policy, config.every, config.momentum)
    if config.every is not None:
        return PeriodicSync(policy, config.every)
    if assembly.modality.adapter:
        return AdapterOff(policy)
    return FrozenCopy(policy, accelerator.autocast) if wanted else None


def _build_teacher_caches(
    assembly: Assembly, teachers: Mapping[str, FrozenModel], accelerator: Accelerator
) -> dict[str, ReferenceCache]:
    caches = {
        name: _build_cache(assembly, assembly.teachers[name], teacher, accelerator, assembly.config.teachers[name])
        for name, teacher in teachers.items()
    }
    return {name: cache for name, cache in caches.items() if cache is not None}


def _build_cache(
    assembly: Assembly,
    modality: Modality,
    reference: Reference | None,
    accelerator: Accelerator,
    own: Mapping[str, Any] | None = None,
) -> ReferenceCache | None:
    """Builds the cache of a reference or teacher that is fixed; sharded, all processes would have to miss together.

    `own` are the keys of a teacher that differ from those of the policy.
    """
    config = assembly.config
    kept = config.reference.cache and not assembly.modality.stochastic_encoding
    if not kept or not isinstance(reference, FixedReference) or _is_sharded(accelerator):
        return None
    settings = config.modality.model_dump(exclude=set(assembly.modality.adapter_parameters)) | dict(own or {})
    return ReferenceCache(
        lambda: {
            # The policy's modality encodes for all.
            **describe_scoring(modality, reference.policy.network),
            "encoding": assembly.modality.fingerprint(),
            "weights": hash_tensors(reference.weights()),
            "modality": settings,
            "mixed_precision": accelerator.mixed_precision,
            "device": accelerator.device.type,
        }
    )


def _is_sharded(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def count_steps(config: RunConfig, source: Source) -> int:
    """Counts the optimiser steps of a run.

    Raises:
        ConfigError: `train.epochs` is given for a source without a length.
    """
    if config.train.steps is not None:
        return config.train.steps
    try:
        size = len(source)
    except TypeError:
        raise ConfigError("train.steps: needed, since streamed data have no length to count epochs by") from None
    prompts = size * cast(float, config.train.epochs) * (config.train.epochs_per_round if config.collector else 1)
    return max(1, ceil(prompts / config.train.batch_size))
