"""A finished run as a scorer inside another one: its policy and heads, frozen, without what belongs to a process.

`mmalign.api.load_run` builds a whole run, whose accelerator is one for the process; a reward or transform that scores
with a trained model inside a run needs the forward pass alone. The scores are those of `mmalign score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import torch

from mmalign.compute.backend import Backend
from mmalign.compute.memory import MicroBatchSize
from mmalign.data.records import Record
from mmalign.errors import CheckpointError, ConfigError
from mmalign.hardware import choose_dtype, choose_precision, find_device
from mmalign.networks.policy import Policy
from mmalign.planning.assembly import Assembly
from mmalign.results.checkpoint import find_latest, load_checkpoint
from mmalign.results.run_folder import CHECKPOINTS, CONFIG
from mmalign.training.annotation import score_records
from mmalign.training.assembling import load_assembly

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class RunScorer:
    """What `score_records` needs of a run; build it with `load_scorer`."""

    assembly: Assembly
    policy: Policy
    backend: Backend

    def score(self, records: Sequence[Record], quantity: str) -> list[list[float]]:
        """Computes a quantity of every response of every record; NaN where there is none."""
        name = f"run/{quantity}"
        rows = []
        for record in score_records(self, records, quantity, name=name):
            values = {one.item: one.value for one in record.scores if one.name == name}
            found = [values.get(response.rid) for response in record.responses]
            rows.append([nan if value is None else value for value in found])
        return rows


def load_scorer(path: str | Path, quantity: str, where: str) -> RunScorer:
    """Loads the newest checkpoint of a run.

    Args:
        path: the folder of a run.
        quantity: what will be asked for.
        where: the config key that names the folder, for errors.

    Raises:
        ConfigError: it is no run, or one that does not compute that quantity of stored responses.
        CheckpointError: it has no whole checkpoint, or one that lacks trained weights.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{where}: {str(path)!r} is not the folder of a run, no {CONFIG} in it")
    latest = find_latest(folder / CHECKPOINTS)
    if latest is None:
        raise CheckpointError(f"{where}: {str(path)!r} holds no checkpoint")
    assembly = load_assembly(folder / CONFIG)
    if assembly.online or quantity not in {one.name for one in assembly.plan.providers if one.axes == "N"}:
        raise ConfigError(
            f"{where}: the run {str(path)!r} computes no {quantity!r} of responses; e.g. one of the objective "
            "reward_model has `scores`"
        )
    scorer = _build(assembly)
    weights = load_checkpoint(latest).tensors["policy"]
    missing = {name for name, one in scorer.policy.named_parameters() if one.requires_grad} - weights.keys()
    if missing:
        raise CheckpointError(f"{where}: {str(latest)!r} lacks trained weights, e.g. {min(missing)!r}")
    scorer.policy.load_state_dict(weights, strict=False)
    scorer.policy.requires_grad_(False).eval()
    return scorer


def _build(assembly: Assembly) -> RunScorer:
    train, modality = assembly.config.train, assembly.modality
    device = find_device()
    dtype = choose_dtype(train.dtype, device, adapter=modality.adapter)
    precision = choose_precision(train.mixed_precision, dtype, adapter=modality.adapter)
    model = modality.load(device=device, dtype=dtype)
    heads = [name for name in ("scores", "values") if name in assembly.plan.forward.outputs]
    policy = Policy(modality, model, heads, assembly.plan.trained).to(device)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(device.type, _HALF[precision]) if precision in _HALF else nullcontext()

    backend = Backend(
        assembly=assembly,
        policy=policy,
        unwrapped=policy,
        reference=None,
        device=device,
        autocast=autocast,
        micro_batch_size=MicroBatchSize(train.micro_batch_size),
        sum_over_processes=lambda value: value,
        reference_cache=None,
        teachers={},
        teacher_caches={},
        process_index=0,
        processes=1,
    )
    return RunScorer(assembly, policy, backend)
